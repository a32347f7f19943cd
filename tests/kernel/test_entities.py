"""Entity supervision: what an actor cannot digest is set aside, and only an actor that keeps failing is paused."""

import asyncio
import time
from typing import Any

import asyncpg
import msgspec
import pytest

from amends.domain.domain import Domain
from amends.domain.versions import Message
from amends.kernel import Kernel
from amends.turn.decision import Decision
from amends.turn.messages import CommandInfo, Envelope, ResolveCase
from amends.values.errors import Rejected
from examples import switch_port as module
from examples.switch_port import PORT, SWITCH, Bind, Switch
from tests.kernel.conftest import Running
from tests.kernel.test_switch_port import port_is, sql
from tests.patience import PATIENCE_S


class Poison(msgspec.Struct, frozen=True):
    """A message whose handling raises."""


class Rename(Message, frozen=True):
    machine: str


class Owe(msgspec.Struct, frozen=True):
    """From here on the port owes something."""


def _owe(s: Any, m: Owe, d: Decision) -> None:
    d.set(owing=True)


def _poison(s: Any, m: Poison, d: Decision) -> None:
    d.set(machine="half-way")
    raise ValueError("cannot be digested")


def _rename(s: Any, m: Rename, d: Decision) -> None:
    d.set(machine=m.machine)


@pytest.fixture
def domain() -> Domain:
    port = msgspec.structs.replace(PORT, handlers={**PORT.handlers, Poison: _poison, Rename: _rename, Owe: _owe})
    return msgspec.structs.replace(SWITCH, kinds=(port, *SWITCH.kinds[1:]))


@pytest.fixture(autouse=True)
def _with_poison(monkeypatch: pytest.MonkeyPatch, domain: Domain) -> None:
    monkeypatch.setattr("tests.kernel.conftest.SWITCH", domain)
    monkeypatch.setattr(module, "SWITCH", domain)


async def machine_is(kernel: Kernel, port: str, machine: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        state = kernel.engine.store.get("port", port)
        if state is not None and getattr(state, "machine", "") == machine:
            return
        assert time.monotonic() < deadline, state
        await asyncio.sleep(0.01)


async def quarantined(kernel: Kernel, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while kernel.engine.policy.quarantined < count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_message_that_raises_is_set_aside_and_the_next_one_is_handled(
    running: Running, switch: Switch, dsn: str
) -> None:
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        await port_is(kernel, "p1", "bound")
        kernel.engine.tell("port", "p1", Envelope(Poison(), priority=True))
        kernel.engine.tell("port", "p1", Envelope(Rename("m2"), priority=True))
        await machine_is(kernel, "p1", "m2")
        assert kernel.engine.policy.crashes == 3
        (row,) = await sql(dsn, "SELECT entity, type, error FROM message_quarantine")
        assert row == {"entity": "port:p1", "type": "Poison", "error": "ValueError: cannot be digested"}
        assert await sql(dsn, "SELECT * FROM ops_case") == []


async def test_an_actor_that_keeps_failing_is_paused_until_its_case_is_resolved(
    running: Running, switch: Switch, dsn: str
) -> None:
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        await port_is(kernel, "p1", "bound")
        for _ in range(3):
            kernel.engine.tell("port", "p1", Envelope(Poison(), priority=True))
        await quarantined(kernel, 3)
        kernel.engine.tell("port", "p2", Envelope(Bind("m9"), priority=True))
        await port_is(kernel, "p2", "bound")  # neighbours go on
        (case,) = await sql(dsn, "SELECT case_id, kind, target_ref, state FROM ops_case")
        assert (case["kind"], case["target_ref"], case["state"]) == ("actor_quarantined", "port:p1", "open")
        # while it is paused, messages wait and commands are told so
        kernel.engine.tell("port", "p1", Envelope(Rename("m2"), priority=True))
        refused: list[Rejected | None] = []
        info = CommandInfo("me", "k1", "h", "cmd.x", "req_1", "t" * 32, "s" * 16, "", 1)
        rename = Envelope(Rename("m3"), command=info, reply=lambda data, error: refused.append(error))
        kernel.engine.tell("port", "p1", rename)
        async with asyncio.timeout(PATIENCE_S):
            while not refused:
                await asyncio.sleep(0.01)
        assert refused[0] is not None
        assert refused[0].code == "illegal_transition"
        # when an operator resolves the case, what waited is handled
        resolve = ResolveCase("actor_quarantined", case["case_id"], "the message was bad")
        kernel.engine.tell("port", "p1", Envelope(resolve, priority=True, actor="operator:me"))
        await machine_is(kernel, "p1", "m2")
        (case,) = await sql(dsn, "SELECT state FROM ops_case")
        assert case == {"state": "resolved"}


async def test_a_paused_actor_takes_the_commands_that_only_note_what_was_said(
    running: Running, switch: Switch, dsn: str, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a kind that takes one command while it is paused, and a paused actor of it
    port = msgspec.structs.replace(domain.kinds[0], while_paused=frozenset({Rename}))
    monkeypatch.setattr(
        "tests.kernel.conftest.SWITCH", msgspec.structs.replace(domain, kinds=(port, *domain.kinds[1:]))
    )
    replies: list[tuple[Any, Rejected | None]] = []

    async def command(kernel: Kernel, message: Any, key: str) -> Rejected | None:
        info = CommandInfo("me", key, "h", "cmd.x", f"req_{key}", "t" * 32, "s" * 16, "", 1)
        env = Envelope(message, command=info, reply=lambda data, error: replies.append((data, error)))
        replies.clear()
        kernel.engine.tell("port", "p1", env)
        async with asyncio.timeout(PATIENCE_S):
            while not replies:
                await asyncio.sleep(0.01)
        return replies[0][1]

    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        await port_is(kernel, "p1", "bound")
        for _ in range(3):
            kernel.engine.tell("port", "p1", Envelope(Poison(), priority=True))
        await quarantined(kernel, 3)
        # then that one is done at once, and others are refused as ever
        assert await command(kernel, Rename("m2"), "k1") is None
        refused = await command(kernel, Owe(), "k2")
        assert refused is not None
        assert refused.code == "illegal_transition"
    # and after a restart it is still paused, and knows what it was told
    async with running() as kernel:
        state = kernel.engine.store.get("port", "p1")
        assert state is not None
        assert (state.paused, getattr(state, "machine", "")) == (True, "m2")


async def test_a_step_the_runtime_does_not_know_any_more_pauses_its_entity(
    running: Running, switch: Switch, dsn: str, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = asyncio.Event()

    async def stuck(call: Any) -> Any:
        await hang.wait()

    monkeypatch.setattr(switch, "run", stuck)
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        deadline = time.monotonic() + PATIENCE_S
        while kernel.dispatcher.running == 0:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
    # a release that has renamed the step finds the old intent
    steps = tuple(
        msgspec.structs.replace(step, name="vlan.assign") if step.name == "vlan.set" else step for step in domain.steps
    )
    rows = (module.row("S1", ("vlan.assign", "port.up", "vlan.clear"), ("port_stuck",)), domain.matrix.rows[1])
    renamed = msgspec.structs.replace(domain, steps=steps, matrix=msgspec.structs.replace(domain.matrix, rows=rows))
    monkeypatch.setattr("tests.kernel.conftest.SWITCH", renamed)
    async with running() as kernel:
        deadline = time.monotonic() + PATIENCE_S
        while not await sql(dsn, "SELECT * FROM ops_case"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        (case,) = await sql(dsn, "SELECT kind, target_ref, case_id, evidence FROM ops_case")
        assert (case["kind"], case["target_ref"]) == ("unknown_step", "port:p1")
        assert switch.calls == []
        state = kernel.engine.store.get("port", "p1")
        assert state is not None
        assert state.paused
        # when a person gives the step up
        row = {"evidence": msgspec.json.decode(case["evidence"])}
        resolve = ResolveCase("unknown_step", case["case_id"], "undone by hand", row=row)
        kernel.engine.tell("port", "p1", Envelope(resolve, priority=True, actor="operator:me"))
        deadline = time.monotonic() + PATIENCE_S
        while await sql(dsn, "SELECT 1 FROM step WHERE state = 'intended' AND entity = 'port:p1'"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    # then the next start does not pause the entity again
    async with running() as kernel:
        state = kernel.engine.store.get("port", "p1")
        assert state is not None
        assert not state.paused
        assert [each["state"] for each in await sql(dsn, "SELECT state FROM ops_case")] == ["resolved"]


async def test_an_outcome_that_the_database_refuses_for_good_is_kept_and_its_entity_paused(
    running: Running, switch: Switch, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amends.runtime.policy.REFUSED_TRIES", 2)
    async with running() as kernel:
        await execute(
            dsn,
            """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN IF NEW.state = 'bound' THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$;
               CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON actors FOR EACH ROW EXECUTE FUNCTION refuse()""",
        )
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        deadline = time.monotonic() + PATIENCE_S
        while not (cases := await sql(dsn, "SELECT case_id, kind, target_ref FROM ops_case")):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert (cases[0]["kind"], cases[0]["target_ref"]) == ("actor_quarantined", "port:p1")
        # when the cause is mended and the case resolved, the outcome that waited is taken in
        await execute(dsn, "DROP TRIGGER refuse ON actors")
        resolve = ResolveCase("actor_quarantined", cases[0]["case_id"], "the trigger is gone")
        kernel.engine.tell("port", "p1", Envelope(resolve, priority=True, actor="operator:me"))
        await port_is(kernel, "p1", "bound")
        assert switch.calls.count("vlan.set") == switch.calls.count("port.up") == 1


async def test_a_paused_entity_that_owes_something_is_let_go_by_resolving_what_paused_it(
    running: Running, switch: Switch, dsn: str
) -> None:
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        await port_is(kernel, "p1", "bound")
        kernel.engine.tell("port", "p1", Envelope(Owe(), priority=True))
        kernel.engine.tell("port", "p1", Envelope(Poison(), priority=True))
        deadline = time.monotonic() + PATIENCE_S
        while not (cases := await sql(dsn, "SELECT case_id, kind FROM ops_case")):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert cases[0]["kind"] == "actor_quarantined", (
            "what owes may wait for the very message set aside: one is enough"
        )
        turns = await sql(
            dsn,
            """SELECT a.jseq FROM audit_log AS a WHERE a.action = 'message.quarantined'
               UNION SELECT a.jseq FROM audit_log AS a WHERE a.action = 'actor.paused'
               UNION SELECT jseq FROM message_quarantine UNION SELECT jseq FROM ops_case""",
        )
        assert len(turns) == 1, "the message is set aside and the entity paused in one turn (A3)"
        kernel.engine.tell("port", "p1", Envelope(Rename("m2"), priority=True))
        resolve = ResolveCase("actor_quarantined", cases[0]["case_id"], "mended")
        kernel.engine.tell("port", "p1", Envelope(resolve, priority=True, actor="operator:me"))
        await machine_is(kernel, "p1", "m2")


async def test_failures_count_in_a_row(running: Running, dsn: str) -> None:
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        await port_is(kernel, "p1", "bound")
        for number in range(1, 6):
            kernel.engine.tell("port", "p1", Envelope(Poison(), priority=True))
            kernel.engine.tell("port", "p1", Envelope(Rename(f"m{number}"), priority=True))
            await machine_is(kernel, "p1", f"m{number}")
        assert kernel.engine.policy.quarantined == 5
        assert await sql(dsn, "SELECT * FROM ops_case") == []


async def test_a_durable_message_that_comes_twice_is_taken_in_once(running: Running, dsn: str) -> None:
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        await port_is(kernel, "p1", "bound")
        await execute(
            dsn,
            """SET amends.epoch = 1;
               INSERT INTO message VALUES ('evt_x', 'port', 'p1', 'Rename', '{}', '', '', 'me', '', 1, 1)""",
        )
        for machine in ("m2", "m3"):
            kernel.engine.tell("port", "p1", Envelope(Rename(machine), message_id="evt_x", priority=True))
        kernel.engine.tell("port", "p1", Envelope(Owe(), priority=True))
        deadline = time.monotonic() + PATIENCE_S
        while not getattr(kernel.engine.store.get("port", "p1"), "owing", False):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        state = kernel.engine.store.get("port", "p1")
        assert getattr(state, "machine", "") == "m2"
        assert kernel.writer.refused < 4, (
            "the repeat, or its batch and then it alone, is refused; it is not tried again"
        )
        assert await sql(dsn, "SELECT * FROM ops_case") == []


async def test_a_mailbox_takes_what_the_runtime_owes_in_its_order_however_much_it_is(
    running: Running, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = msgspec.structs.replace(domain.kinds[0], lane_cap=2)
    small = msgspec.structs.replace(domain, kinds=(port, *domain.kinds[1:]))
    monkeypatch.setattr("tests.kernel.conftest.SWITCH", small)
    seen: list[str] = []
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m0"), priority=True))
        await port_is(kernel, "p1", "bound")
        kernel.engine.listeners.append(lambda decision: seen.append(getattr(decision.state, "machine", "")))
        for number in range(1, 400):
            kernel.engine.tell("port", "p1", Envelope(Rename(f"m{number}"), priority=True))
        await machine_is(kernel, "p1", "m399")
        assert seen == [f"m{number}" for number in range(1, 400)]


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
