"""What was set aside is given back when its case is resolved; what cannot be made out holds its own entity alone."""

import asyncio
import time
from typing import Any

import msgspec
import pytest

from amends.domain.domain import Domain
from amends.kernel import Kernel
from amends.turn.decision import Decision
from amends.turn.messages import CommandInfo, Envelope, ResolveCase, StepDone, TimerFired
from amends.values.errors import Rejected
from examples.switch_port import PORT, SWITCH, Bind, Port, Switch, step_done
from tests.kernel.conftest import Running
from tests.kernel.test_entities import Rename, execute, machine_is
from tests.kernel.test_switch_port import bound, port_is, some, sql
from tests.patience import PATIENCE_S


class Remind(msgspec.Struct, frozen=True):
    """Have a timer fire soon."""


class Broken:
    """Whether the domain's handlers raise."""

    def __init__(self) -> None:
        self.now = False

    def check(self) -> None:
        if self.now:
            raise ValueError("cannot be digested")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    found = Broken()

    def done(s: Port, m: StepDone, d: Decision) -> None:
        found.check()
        step_done(s, m, d)

    def fired(s: Port, m: TimerFired, d: Decision) -> None:
        found.check()
        d.set(machine="reminded")

    def rename(s: Port, m: Rename, d: Decision) -> None:
        found.check()
        d.set(machine=m.machine)

    def remind(s: Port, m: Remind, d: Decision) -> None:
        d.timer("remind", d.now_us + 50_000)

    handlers: Any = {**PORT.handlers, StepDone: done, TimerFired: fired, Rename: rename, Remind: remind}
    port = msgspec.structs.replace(PORT, handlers=handlers)
    domain: Domain = msgspec.structs.replace(SWITCH, kinds=(port, *SWITCH.kinds[1:]))
    monkeypatch.setattr("tests.kernel.conftest.SWITCH", domain)
    return found


async def one_case(dsn: str) -> dict[str, Any]:
    """The open case, once there is one."""
    (case,) = await some(dsn, "SELECT * FROM ops_case WHERE state = 'open'")
    return case


async def told_of_cases(dsn: str) -> list[str]:
    """Of which entities operators were told that a case is open."""
    query = "SELECT body FROM notifications WHERE body->>'kind' = 'case.opened'"
    bodies = [msgspec.json.decode(each["body"])["body"] for each in await sql(dsn, query)]
    return sorted(body["entity"] for body in bodies if body["case_id"])


async def resolve(kernel: Kernel, case: dict[str, Any]) -> Rejected | None:
    """Resolve the case as an operator does; why not, if it is refused."""
    row = {"evidence": msgspec.json.decode(case["evidence"])}
    message = ResolveCase(case["kind"], case["case_id"], "mended", row=row)
    answer: asyncio.Future[Rejected | None] = asyncio.get_running_loop().create_future()
    info = CommandInfo("me", f"k{time.monotonic_ns()}", "h", "ops.case.resolve", f"req_{time.monotonic_ns()}",
                       "t" * 32, "s" * 16, "", 1, operator="me")  # fmt: skip
    env = Envelope(message, actor="operator:me", command=info, reply=lambda data, error: answer.set_result(error))
    kind, _, identifier = case["entity"].partition(":")
    kernel.engine.tell(kind, identifier, env)
    async with asyncio.timeout(PATIENCE_S):
        return await answer


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_outcome_that_could_not_be_digested_is_taken_in_when_its_case_is_resolved(
    running: Running, switch: Switch, dsn: str, broken: Broken, restarted: bool
) -> None:
    broken.now = True
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        case = await one_case(dsn)
        assert case["kind"] == "actor_quarantined"
        if not restarted:
            broken.now = False
            assert await resolve(kernel, case) is None
            await port_is(kernel, "p1", "bound")
            assert switch.calls.count("vlan.set") == 1
    if restarted:
        broken.now = False
        async with running() as kernel:
            assert await resolve(kernel, case) is None
            await port_is(kernel, "p1", "bound")


async def test_a_timer_that_could_not_be_digested_fires_when_its_case_is_resolved(
    running: Running, dsn: str, broken: Broken
) -> None:
    async with running() as kernel:
        await bound(kernel, "p1")
        broken.now = True
        kernel.engine.tell("port", "p1", Envelope(Remind(), priority=True))
        case = await one_case(dsn)
        broken.now = False
        assert await resolve(kernel, case) is None
        await machine_is(kernel, "p1", "reminded")


async def test_a_durable_message_that_could_not_be_digested_stays_a_row_until_it_is(
    running: Running, dsn: str, broken: Broken
) -> None:
    async with running() as kernel:
        await bound(kernel, "p1")
        await execute(
            dsn,
            """SET amends.epoch = 1;
               INSERT INTO message
               VALUES ('evt_x', 'port', 'p1', 'Rename', '{"machine":"m2"}', '', '', 'me', '', 1, 1)""",
        )
        broken.now = True
        kernel.engine.tell("port", "p1", Envelope(Rename("m2"), message_id="evt_x", priority=True))
        case = await one_case(dsn)
        assert len(await sql(dsn, "SELECT * FROM message")) == 1
        broken.now = False
        assert await resolve(kernel, case) is None
        await machine_is(kernel, "p1", "m2")
        assert await sql(dsn, "SELECT * FROM message") == []


async def test_a_state_that_cannot_be_made_out_holds_its_own_entity_alone_until_it_is_mended(
    running: Running, dsn: str, broken: Broken
) -> None:
    async with running() as kernel:
        await bound(kernel, "p1", "p2")
        for name in ("p1", "p2"):
            kernel.engine.tell("port", name, Envelope(Remind(), priority=True))
        await machine_is(kernel, "p1", "reminded")
    edit = """SET amends.epoch = {};
              UPDATE actors SET body = replace(body::text, '"machine":', '"{}":')::jsonb WHERE id = 'p1'"""
    await execute(dsn, edit.format(1, "was_machine"))
    for start in (2, 3):  # not fatal at any start, and one case, not one for each
        async with running() as kernel:
            kernel.engine.tell("port", "p1", Envelope(Rename(f"n{start}"), priority=True))
            kernel.engine.tell("port", "p2", Envelope(Rename(f"n{start}"), priority=True))
            await machine_is(kernel, "p2", f"n{start}")
            case = await one_case(dsn)
            assert (case["kind"], case["target_ref"]) == ("actor_quarantined", "port:p1")
            refused = await resolve(kernel, case)
            assert refused is not None
            assert "machine" in refused.message
            if start == 3:  # when a person has mended the row
                await execute(dsn, edit.replace('"machine', '"was_machine').format(3, "machine"))
                assert await resolve(kernel, case) is None
                await machine_is(kernel, "p1", "n3")
                assert [each["state"] for each in await sql(dsn, "SELECT state FROM ops_case")] == ["resolved"]
    assert await told_of_cases(dsn) == ["port:p1"], "once, not at each start"


async def test_messages_and_steps_that_cannot_be_made_out_hold_their_entity_and_not_the_start(
    running: Running, dsn: str, broken: Broken
) -> None:
    async with running() as kernel:
        await bound(kernel, "p1", "p2")
    await execute(
        dsn,
        """SET amends.epoch = 1;
           INSERT INTO message VALUES ('evt_a', 'port', 'p1', 'Rename', '{"machine":5}', '', '', 'me', '', 1, 1),
                                      ('evt_b', 'wormhole', 'w1', 'Open', '{}', '', '', 'me', '', 1, 1)""",
    )
    async with running() as kernel:
        kernel.engine.tell("port", "p2", Envelope(Rename("n2"), priority=True))
        await machine_is(kernel, "p2", "n2")
        cases = await some(dsn, "SELECT kind, target_ref FROM ops_case ORDER BY target_ref", 2)
        assert [tuple(each.values()) for each in cases] == [
            ("unknown_step", "port:p1"), ("actor_quarantined", "wormhole:w1"),
        ]  # fmt: skip
        assert await told_of_cases(dsn) == ["port:p1", "wormhole:w1"]


async def test_what_waits_for_the_hold_of_a_target_to_end_is_done_when_the_target_is_back(
    running: Running, switch: Switch
) -> None:
    async with running() as kernel:
        # given a target that is left alone for an hour, and a step that waits for that
        held_us = kernel.engine.now_us() + 3_600_000_000
        kernel.dispatcher.reach.held_until = lambda adapter, target: held_us  # type: ignore[method-assign]
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        async with asyncio.timeout(PATIENCE_S):
            while not kernel.dispatcher.waiting:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert switch.calls == []
        # when it is back, then it is tried at once
        kernel.dispatcher.reach.held_until = lambda adapter, target: 0  # type: ignore[method-assign]
        (target,) = kernel.dispatcher._queues
        kernel.dispatcher.wake(target)
        await port_is(kernel, "p1", "bound")
