"""One step back and forward again, on a real database: what a later release has stored is held, and then goes on."""

import asyncio
from typing import Any

import msgspec
import pytest

from amends.domain.versions import Message
from amends.turn.messages import Envelope
from examples.switch_port import PORT, SWITCH, Bind, Switch
from tests.kernel.conftest import Running
from tests.kernel.test_entities import Rename, execute, machine_is
from tests.kernel.test_given_back import resolve
from tests.kernel.test_switch_port import port_is, some, sql
from tests.patience import PATIENCE_S


class Renamed(Message, frozen=True):
    """`Rename`, as the later release has it."""

    upgrades = (lambda found: {"name": found["machine"]},)

    name: str


Renamed.__name__ = "Rename"


def release(monkeypatch: pytest.MonkeyPatch, *, later: bool) -> None:
    """Which release is started from now on."""

    def rename(s: Any, m: Any, d: Any) -> None:
        d.set(machine=m.name if later else m.machine)

    handlers: Any = {**PORT.handlers, (Renamed if later else Rename): rename}
    port = msgspec.structs.replace(PORT, handlers=handlers)
    upgrades = (lambda found: found,) if later else ()
    steps = tuple(
        msgspec.structs.replace(step, upgrades=upgrades) if step.name == "vlan.set" else step for step in SWITCH.steps
    )
    domain = msgspec.structs.replace(SWITCH, kinds=(port, *SWITCH.kinds[1:]), steps=steps)
    monkeypatch.setattr("tests.kernel.conftest.SWITCH", domain)


async def test_what_a_later_release_has_left_is_held_by_the_one_before_and_goes_on_after_it(
    running: Running, switch: Switch, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a later release that ends with a step under way and a message on its way
    hang = asyncio.Event()

    async def stuck(call: Any) -> Any:
        await hang.wait()

    release(monkeypatch, later=True)
    with monkeypatch.context() as patched:
        patched.setattr(switch, "run", stuck)
        async with running() as kernel:
            kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
            async with asyncio.timeout(PATIENCE_S):
                while not kernel.dispatcher.running:
                    await asyncio.sleep(0.01)
    assert [row["args"] for row in await sql(dsn, "SELECT args FROM step")] == ['{"machine":"m1","v":2}']
    body = '{"name":"m2","v":2}'
    await execute(
        dsn,
        f"""SET amends.epoch = 1;
            INSERT INTO message VALUES ('evt_a', 'port', 'p1', 'Rename', '{body}', '', '', 'me', '', 1, 1)""",
    )
    # when the release before is started, then that entity is held and says why, and others go on
    release(monkeypatch, later=False)
    async with running() as kernel:
        kernel.engine.tell("port", "p2", Envelope(Bind("m9"), priority=True))
        await port_is(kernel, "p2", "bound")
        (case,) = await some(dsn, "SELECT * FROM ops_case", 1)
        assert (case["kind"], case["target_ref"]) == ("unknown_step", "port:p1")
        assert case["evidence"].count("of version 2, this release reads up to 1") == 2
        assert switch.vlan == {"m9"}
    # when the later one is back, and a person resolves the case, then all of it is done after all
    release(monkeypatch, later=True)
    async with running() as kernel:
        assert await resolve(kernel, case) is None
        await machine_is(kernel, "p1", "m2")
        await port_is(kernel, "p1", "bound")
        assert await sql(dsn, "SELECT * FROM message") == await sql(dsn, "SELECT * FROM message_quarantine") == []
        assert {row["state"] for row in await sql(dsn, "SELECT state FROM step WHERE entity = 'port:p1'")} == {"done"}
    assert switch.vlan == {"m9", "m1"}
