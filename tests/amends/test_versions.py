"""What lies in the database from one release to the next says its version, and is brought up when it is read."""

from typing import Any, ClassVar, cast

import msgspec
import pytest

from amends.domain.domain import Domain
from amends.domain.kinds import ActorKind, ActorState
from amends.domain.matrix import Matrix
from amends.domain.steps import StepSpec
from amends.domain.versions import Message, Upgrade, newest
from amends.runtime.dispatcher import Dispatcher
from amends.runtime.engine import Engine
from amends.runtime.loading import Left, resume
from amends.runtime.policy import _resolve
from amends.turn.context import Context
from amends.turn.decision import Decision
from amends.turn.messages import Envelope, Pause, ResolveCase
from amends.values.limits import Limits
from amends.values.records import CaseRow, MessageRow, QuarantineRow, StepEndRow, StepRow


def _hue(found: dict[str, Any]) -> dict[str, Any]:
    """Of version 1: a colour was a number."""
    return {"colour": ("red", "blue")[found["hue"]]}


def _coats(found: dict[str, Any]) -> dict[str, Any]:
    """Of version 2: there was one coat."""
    return {**found, "coats": 1}


class Paint(Message, frozen=True):
    """Have another colour."""

    upgrades: ClassVar[tuple[Upgrade, ...]] = (_hue, _coats)

    colour: str
    coats: int


class Sand(Message, frozen=True):
    """Be smooth."""

    grain: int


class Thing(ActorState, frozen=True, kw_only=True):
    """Something that is."""


def _moved(found: dict[str, Any]) -> dict[str, Any]:
    return {"wall": found["side"]}


THING = ActorKind(
    name="thing", state_type=Thing, states={"on": "rest"}, transitions={("", "on"): "made"},
    handlers={Paint: lambda s, m, d: None, Sand: lambda s, m, d: None},
)  # fmt: skip
STEPS = (
    StepSpec(name="paint", adapter="any", undo="wash", upgrades=(_moved,)),
    StepSpec(name="sand", adapter="any", undo="wash"),
    StepSpec(name="wash", adapter="any", no_undo="it is the undo", upgrades=(_moved,)),
)
CONTEXT = Context(
    (Domain(name="things", kinds=(THING,), steps=STEPS, matrix=Matrix("1", ())),), epoch=1, limits=Limits({})
)


def decided(state: Thing | None = None, message: Any = None) -> Decision:
    state = Thing(state="on") if state is None else state
    return Decision(THING, "t1", state, Envelope(message), CONTEXT, 1_000_000, bytes(16))


# --- what is written -------------------------------------------------------------------------------------


def test_a_message_and_arguments_say_their_version_unless_it_is_the_first() -> None:
    d = decided()
    d.tell("thing", "t2", Paint("red", 2))
    d.tell("thing", "t2", Sand(5))
    d.step("paint", "wall:1", {"wall": "n"}, undo={"wall": "n"})
    d.step("sand", "wall:2", {"grain": 5}, undo={"wall": "s"})
    bodies = [msgspec.json.decode(sent.row.body) for sent in d.sent]
    assert bodies == [{"colour": "red", "coats": 2, "v": 3}, {"grain": 5}]
    assert [msgspec.json.decode(row.args) for row in d.steps] == [{"wall": "n", "v": 2}, {"grain": 5}]
    assert [msgspec.json.decode(row.undo)["args"] for row in d.steps] == [{"wall": "n", "v": 2}, {"wall": "s", "v": 2}]


def test_an_undo_that_an_older_release_owes_is_brought_up_and_owed_once() -> None:
    # given what a release before has begun
    old = msgspec.json.decode(
        b'{"state":"on","owed":[{"step":"wash","target":"wall:1","args":{"side":"n"},"what":"paint","of":"t:s"}]}',
        type=Thing,
    )
    d = decided(old)
    assert d.undo_args(d.state.owed[0]) == {"wall": "n"}
    # when this one begins what the same undo undoes, then it is owed once
    d.step("sand", "wall:1", {"grain": 5}, undo={"wall": "n"})
    assert d.state.owed == old.owed
    d.step("sand", "wall:2", {"grain": 5}, undo={"wall": "s"})
    assert [d.undo_args(owed) for owed in d.state.owed] == [{"wall": "n"}, {"wall": "s"}]


# --- what is read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ('{"hue":1}', {"colour": "blue", "coats": 1}),
        ('{"v":1,"hue":0}', {"colour": "red", "coats": 1}),
        ('{"v":2,"colour":"green"}', {"colour": "green", "coats": 1}),
        ('{"v":3,"colour":"green","coats":2}', {"colour": "green", "coats": 2}),
    ],
)
def test_each_version_is_brought_up(stored: str, read: dict[str, Any]) -> None:
    assert newest(stored, Paint.upgrades) == read


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        ('{"v":4,"colour":"green"}', "of version 4, this release reads up to 3"),
        ('{"v":0,"hue":1}', ">= 1"),
        ('{"v":"2","hue":1}', "int"),
        ('{"hue":7}', "cannot be brought up from version 1: IndexError"),
        ("[1]", "object"),
        ("{", "truncated"),
    ],
)
def test_what_cannot_be_brought_up_says_why(stored: str, why: str) -> None:
    with pytest.raises(msgspec.MsgspecError, match=why):
        newest(stored, Paint.upgrades)


# --- what was left ---------------------------------------------------------------------------------------


def message(message_id: str, to: str, name: str, body: str, kind: str = "thing") -> MessageRow:
    return MessageRow(message_id, kind, to, name, body, "t", "s", "me", "", 1)


def step(step_id: str, entity: str, name: str, args: str) -> StepRow:
    return StepRow(step_id, entity, name, 1, "intended", step_id, "wall:1", args, "{}", "t", "s", 1, None, None, "",
                   "", 1)  # fmt: skip


async def taken_up(*rows: MessageRow | StepRow) -> tuple[Dispatcher, dict[str, list[Any]]]:
    told: dict[str, list[Any]] = {}
    CONTEXT.unread.clear()
    engine = Engine({"thing": THING}, CONTEXT, lambda: 1, lambda kind, identifier, then: None)
    engine.tell = lambda kind, identifier, env: told.setdefault(identifier, []).append(env.message)  # type: ignore[method-assign]
    specs = {each.name: each for each in STEPS}
    dispatcher = Dispatcher(engine, specs, cast("Any", {}), may_act=lambda: False)
    steps = [row for row in rows if isinstance(row, StepRow)]
    await resume(engine, dispatcher, Left(steps, [row for row in rows if isinstance(row, MessageRow)]))
    return dispatcher, told


async def test_what_an_older_release_has_left_is_brought_up_and_done() -> None:
    dispatcher, told = await taken_up(
        message("m1", "a", "Paint", '{"hue":1}'), message("m2", "a", "Sand", '{"grain":3}'),
        step("s1", "thing:b", "paint", '{"side":"n"}'), step("s2", "thing:b", "sand", '{"grain":3}'),
    )  # fmt: skip
    assert told == {"a": [Paint("blue", 1), Sand(3)]}
    (queue,) = dispatcher._queues.values()
    assert [dispatcher.args_of(row) for row in queue] == [{"wall": "n"}, {"grain": 3}]


LATER = {
    "a later message": message("x", "a", "Paint", '{"v":4,"colour":"red"}'),
    "a later message of a shape that had one version": message("x", "a", "Sand", '{"v":2,"grain":5}'),
    "a message that nobody knows": message("x", "a", "Varnish", "{}"),
    "a damaged message": message("x", "a", "Sand", '{"grain":'),
    "later arguments": step("x", "thing:a", "paint", '{"v":3,"wall":"n"}'),
    "later arguments of a step that had one version": step("x", "thing:a", "sand", '{"v":2,"grain":1}'),
    "a step that nobody knows": step("x", "thing:a", "varnish", "{}"),
    "damaged arguments": step("x", "thing:a", "sand", '{"grain":'),
}


@pytest.mark.parametrize("row", LATER.values(), ids=LATER)
async def test_what_this_release_cannot_make_out_holds_its_own_entity_and_nothing_else(row: Any) -> None:
    dispatcher, told = await taken_up(
        row, message("m1", "b", "Sand", '{"grain":3}'), step("s1", "thing:b", "sand", '{"grain":3}')
    )
    assert (told["b"], dispatcher.waiting) == ([Sand(3)], 1)
    (pause,) = told["a"]
    assert (type(pause), pause.kind) == (Pause, "unknown_step")
    assert [bool(each["why"]) for each in pause.evidence["steps"] + pause.evidence["messages"]] == [True]
    assert CONTEXT.unread == {"x"}
    # when a person resolves its case, then it is given up
    assert given_up(pause.evidence) == ["x"]
    # but not by a release that can make it out: there it goes on
    CONTEXT.unread.clear()
    assert given_up(pause.evidence) == []


def given_up(evidence: dict[str, Any]) -> list[str]:
    """What resolving the case of that evidence settles."""
    state = Thing(state="on", paused=True, cases={"unknown_step": "case_1"})
    word = ResolveCase("unknown_step", "case_1", "looked at", row={"evidence": evidence})
    d = decided(state, word)
    _resolve(state, word, d)
    assert not d.state.paused
    assert [row.state for row in d.rows if isinstance(row, CaseRow)] == ["resolved"]
    ended = [row.step_id for row in d.rows if isinstance(row, StepEndRow)]
    assert [row.message_id for row in d.rows if isinstance(row, QuarantineRow)] == d.set_aside
    return [*ended, *d.set_aside]
