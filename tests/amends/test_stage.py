"""A stage plays what a message would come to, with any domain; nothing is committed anywhere."""

import random
from typing import Any

import pytest

from amends.ports.steps import Outcome
from amends.runtime import stage as module
from amends.runtime.stage import Stage
from amends.turn.context import Context
from amends.turn.messages import Envelope, StepDone
from amends.values.errors import Rejected, Unavailable
from amends.values.limits import Limits
from amends.values.records import CompensationRow, StepRow
from examples.switch_port import SWITCH, TIMING, Bind, Port

NOW_US = 1_768_464_000_000_000


async def nobody(kind: str, identifier: str) -> bytes | None:
    """Nothing is stored."""
    return None


def made(read_back: Any = nobody) -> Stage:
    context = Context((SWITCH,), epoch=3, limits=Limits(TIMING))
    return Stage((SWITCH,), context, NOW_US, random.Random(0).randbytes, read_back)


def well(row: StepRow, args: dict[str, Any]) -> Outcome | None:
    return Outcome("done")


def badly(row: StepRow, args: dict[str, Any]) -> Outcome | None:
    return Outcome("failed", "no_link", "the port stays down") if row.name == "port.up" else Outcome("done")


async def test_a_message_is_played_to_its_end_at_one_instant() -> None:
    stage = made()
    stage.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
    await stage.play(well)
    assert [row.name for row in stage.done] == ["vlan.set", "port.up"]
    assert stage.rows(CompensationRow) == []
    assert {row.started_us for row in stage.rows(StepRow)} == {NOW_US}
    assert [write.state for write in stage.paper.states] == ["binding", "bound"]


async def test_what_fails_there_is_undone_there_and_who_has_ended_is_read_back_as_ended() -> None:
    stage = made()
    stage.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
    await stage.play(badly)
    (record,) = stage.rows(CompensationRow)
    assert (record.matrix_row, record.outcome) == ("S1", "success")
    ended = stage.paper.states[-1]
    assert (ended.state, stage.engine.store.get("port", "p1")) == ("unbound", None)
    stage.engine.tell("port", "p1", Envelope(Bind("m2"), priority=True))
    await stage.play(well)
    again = stage.engine.store.get("port", "p1")
    assert again is not None
    assert (again.state, again.version) == ("bound", ended.version + 2)


async def test_a_step_that_cannot_be_done_now_is_left() -> None:
    stage = made()
    stage.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
    await stage.play(lambda row, args: None)
    assert ([row.name for row in stage.left], stage.done) == (["vlan.set"], [])


async def test_who_was_lent_or_is_stored_takes_part() -> None:
    lent = made()
    lent.lend("port", "p1", Port(state="binding", machine="m1", version=1))
    step = StepDone("step_1", "vlan.set", 1, "port:p1", {}, Outcome("done"), NOW_US, NOW_US, "0" * 32, "0" * 16)
    lent.engine.tell("port", "p1", Envelope(step, priority=True))
    await lent.play(well)
    assert [row.name for row in lent.done] == ["port.up"]

    async def away(kind: str, identifier: str) -> bytes | None:
        raise Unavailable("Postgres is away")

    stage = made(away)
    stage.engine.tell("port", "p1", Envelope(step, priority=True))
    with pytest.raises(Unavailable):
        await stage.play(well)


async def test_a_turn_that_fails_and_a_play_without_end_are_not_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = made()
    stage.lend("port", "p1", Port(state="bound", machine="m1", version=1))
    stage.engine.tell("port", "p1", Envelope(Bind("m2"), priority=True))
    with pytest.raises(Rejected, match="a turn failed"):
        await stage.play(well)
    monkeypatch.setattr(module, "MOST_TURNS", 1)
    endless = made()
    endless.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
    with pytest.raises(Rejected, match="more than 1 turns"):
        await endless.play(well)
