"""The tables are law: what the matrix, a step or an automaton does not list is a `Bug`, or is refused in one place."""

from typing import Any

import msgspec
import pytest
from msgspec import Struct

from actors.tables import MeterRow
from amends.delivery.domain import DELIVERY_KINDS
from amends.domain.domain import Domain
from amends.domain.kinds import ActorKind, ActorState, Legal
from amends.domain.matrix import CaseKind, Matrix, MatrixRow, OpenRow, broken_promises
from amends.domain.steps import StepSpec
from amends.ports.steps import Outcome
from amends.runtime.store import Store
from amends.turn.cases import open_case
from amends.turn.context import Context
from amends.turn.decision import MAX_BODY, Decision
from amends.turn.messages import Envelope, StepDone
from amends.turn.recovery import begin_run, failed_step, failure
from amends.values.errors import Bug, Rejected
from amends.values.limits import Limits
from amends.values.records import FailureRow


class Thing(ActorState, frozen=True, kw_only=True):
    """Something that is."""

    colour: str = "red"


class Paint(Struct, frozen=True):
    """Have another colour."""

    colour: str


def _red(body: dict[str, Any], identifier: str) -> dict[str, Any]:
    return {**body, "colour": f"{body.pop('color')} of {identifier}"}


THING = ActorKind(
    name="thing", state_type=Thing, states={"on": "rest", "off": "end"},
    transitions={("", "on"): "made", ("on", "off"): "ended"}, handlers={Paint: lambda s, m, d: None},
    legal={Paint: Legal(("on",), "painted")}, upgrades=(_red,),
)  # fmt: skip


def row(row_id: str, *covers: str, **more: Any) -> MatrixRow:
    return MatrixRow(
        id=row_id, name="n", step="s", failure_point="f", detection="d", action="a", owner="o", entity="thing",
        covers=covers, billing="none", exhaustion="none", code=__name__,
        **{"compensations": ("reverse·side_effect",), "budget": ("tries",), "cases": ("stuck",), **more},
    )  # fmt: skip


DOMAIN = Domain(
    name="things", kinds=(THING, *DELIVERY_KINDS),
    steps=(
        StepSpec(name="a", adapter="x", undo="undo"), StepSpec(name="b", adapter="x", undo="undo", failures=("error",)),
        StepSpec(name="undo", adapter="x", no_undo="it is the undo"),
    ),
    matrix=Matrix("1", (row("T1", "a", failure_types=("error", "timeout")), row("T2", "b", exhausts="stuck"))),
    cases=(CaseKind("stuck", ("ops.case.resolve",), "stuck"), CaseKind("other", ("ops.case.resolve",), "other")),
)  # fmt: skip
CONTEXT = Context((DOMAIN,), epoch=1, limits=Limits({"tries": 2, "others": 3}))


def turn(state: Thing | None = None, message: Any = None) -> Decision:
    return Decision(THING, "t1", state or Thing(state="on"), Envelope(message), CONTEXT, 1_000_000, b"s" * 16)


def done(name: str, step_id: str = "s1", code: str = "", *, may_have_run: bool = True) -> StepDone:
    outcome = Outcome("failed", code or "exit", "it failed", may_have_run=may_have_run)
    return StepDone(step_id, name, 1, "node:n1", {}, outcome, 1, 2, "t" * 32, "s" * 16)


# --- the matrix ------------------------------------------------------------------------------------------


def test_what_the_run_s_row_does_not_list_is_a_bug() -> None:
    d = turn()
    run = begin_run(d, "T1")
    with pytest.raises(Bug, match="row T1 of the matrix lists no compensation 'cancel·decision'"):
        run.compensate("cancel", "decision", "it", d.ref, "success", of="t:s", cause="c")
    with pytest.raises(Bug, match="lists no case 'other'"):
        run.escalate("other", d.ref)
    with pytest.raises(Bug, match="lists no budget 'others'"):
        run.tries("others")
    run.compensate("reverse", "side_effect", "it", d.ref, "success", of="t:s", cause="c")
    assert (run.escalate("stuck", d.ref), run.tries("tries")) == (d.state.cases["stuck"], 2)


def test_a_case_that_no_domain_declares_is_a_bug() -> None:
    with pytest.raises(Bug, match="the kind of case 'unheard_of' is not declared"):
        open_case(turn(), "unheard_of")


def test_the_row_of_a_failed_step_comes_from_the_matrix_by_step_and_kind() -> None:
    assert failed_step(turn(), done("a")).row.id == "T1"
    assert failed_step(turn(), done("b")).row.id == "T2"
    d = turn()
    failed_step(d, done("a", code="ssh_timeout"))
    failed_step(d, done("b", code="ack_timeout"))  # it has no failures of that kind
    kinds = [each.failure_type for each in d.rows if isinstance(each, FailureRow)]
    assert kinds == ["timeout", "error"]
    with pytest.raises(Bug, match="no row of the matrix covers undo"):
        failed_step(turn(), done("undo"))


def test_a_failure_belongs_to_no_run_whose_row_has_nothing_to_do_with_it() -> None:
    d = turn()
    with pytest.raises(Bug, match="row T2 of the matrix does not undo with a"):
        failed_step(d, done("a"), begin_run(d, "T2"))


def test_a_spent_budget_ends_as_the_row_says() -> None:
    d = turn()
    run = begin_run(d, "T2")
    failure(d, "exit", "no", component="b", span_id="s", run=run)
    case_id = run.exhausted(d.ref, {"tries": 2})
    assert (d.state.cases, d.state.runs) == ({"stuck": case_id}, {})


def test_a_turn_of_a_row_that_books_nothing_writes_no_money() -> None:
    d = turn()
    begin_run(d, "T1")
    d.row(MeterRow("meter_1", "alloc_1", "acct", "accruing", 1, "v", "h", 1, None, None, 1, 1, 1))
    with pytest.raises(Bug, match="a turn of row T1 may not write meters"):
        d.build()


# --- undo ------------------------------------------------------------------------------------------------


def test_an_undo_is_owed_with_its_arguments_from_the_intent_on() -> None:
    d = turn()
    step_id = d.step("a", "node:n1", {"x": 1}, undo={"y": 2})
    (owed,) = d.state.owed
    assert (owed.step, owed.target, owed.args, owed.what) == ("undo", "node:n1", {"y": 2}, "a")
    (intent,) = d.steps
    assert msgspec.json.decode(intent.undo) == msgspec.to_builtins(owed)
    with pytest.raises(Bug, match="needs the arguments of undo undo"):
        d.step("a", "node:n1", {})
    with pytest.raises(Bug, match="undo has no undo"):
        d.step("undo", "node:n1", {}, undo={})
    with pytest.raises(Bug, match="the step 'nothing' is not declared"):
        d.step("nothing", "node:n1", {})
    # what certainly did not run leaves nothing to undo, what may have run does
    certain = msgspec.structs.replace(done("a", step_id, may_have_run=False), trace_id=intent.trace_id)
    certain = msgspec.structs.replace(certain, span_id=owed.of.partition(":")[2])
    assert turn(d.state, certain).state.owed == ()
    unknown = msgspec.structs.replace(certain, outcome=Outcome("unknown", "timeout"))
    assert turn(d.state, unknown).state.owed == (owed,)


def test_undo_goes_backwards_and_runs_the_step_that_is_declared() -> None:
    d = turn()
    d.step("a", "node:n1", {}, undo={"of": "first"})
    d.step("b", "node:n1", {}, undo={"of": "second"})
    later = turn(d.state)
    run = begin_run(later, "T1")
    undone = []
    while run.undo():
        undo = later.steps[-1]
        undone.append((undo.name, msgspec.json.decode(undo.args)["of"]))
        later.set(owed=later.state.owed[:-1])
    assert undone == [("undo", "second"), ("undo", "first")]


# --- automata --------------------------------------------------------------------------------------------


def test_a_move_that_no_table_lists_is_a_bug() -> None:
    d = turn()
    d.to("off")
    assert d.state.state == "off"
    with pytest.raises(Bug, match="off → on is not in its table"):
        turn(d.state).to("on")


def test_a_second_move_in_one_turn_is_a_bug() -> None:
    d = turn()
    d.to("off")
    with pytest.raises(Bug, match="a second transition in one turn"):
        d.to("off")


def test_every_entry_says_who_when_why_and_in_which_epoch() -> None:
    env = Envelope(None, trace_id="t" * 32, actor="operator:ann", request_id="req_1")
    d = Decision(THING, "t1", Thing(state="on"), env, Context((DOMAIN,), epoch=7, limits=Limits({})), 5, b"s" * 16)
    d.to("off", reason="it is old")
    d.audit("thing.looked_at", reason="to be sure")
    said = [(each.actor, each.request_id, each.trace_id, each.epoch, each.at_us, each.reason) for each in d.audits]
    same = ("operator:ann", "req_1", "t" * 32, 7, 5)
    assert said == [(*same, "it is old"), (*same, "to be sure")]


def test_a_command_outside_its_states_is_refused_by_the_table_and_another_message_is_past() -> None:
    assert THING.takes(Thing(state="on"), Paint("blue"), command=True)
    assert not THING.takes(Thing(state="off"), Paint("blue"), command=False)
    with pytest.raises(Rejected, match="a thing that is off cannot be painted") as refused:
        THING.takes(Thing(state="off"), Paint("blue"), command=True)
    assert (refused.value.code, refused.value.details) == ("illegal_transition", {"state": "off"})


def test_a_body_of_the_release_before_is_brought_up_and_one_of_a_later_release_is_held() -> None:
    store = Store({"thing": THING})
    store.load("thing", "t1", b'{"state":"on","version":7,"color":"blue"}')
    state = store.get("thing", "t1")
    assert isinstance(state, Thing)
    assert (state.colour, state.version, state.v) == ("blue of t1", 7, 2)
    # a shape that only its upgrade can read is no trouble; one that it cannot read is its own entity's
    store.load("thing", "t3", b'{"state":"on","version":7,"colour":{"was":"a dictionary"},"color":"blue"}')
    assert store.get("thing", "t3") is not None
    store.load("thing", "t4", b'{"state":"on","version":7}')
    assert store.get("thing", "t4") is None
    assert store.damage("thing", "t4") == "it cannot be brought up from version 1: KeyError: 'color'"
    store.load("thing", "t2", b'{"state":"on","version":7,"v":3,"colour":"blue"}')
    assert store.get("thing", "t2") is None
    assert store.damage("thing", "t2") == "it is of version 3, this release reads up to 2"


def test_a_body_of_a_later_release_holds_its_entity_also_where_there_was_one_shape_only() -> None:
    store = Store({"thing": msgspec.structs.replace(THING, upgrades=())})
    store.load("thing", "t1", b'{"state":"on","version":7,"colour":"blue"}')
    assert store.get("thing", "t1") is not None
    store.load("thing", "t2", b'{"state":"on","version":7,"v":2,"colour":"blue","size":3}')
    assert store.get("thing", "t2") is None
    assert store.damage("thing", "t2") == "it is of version 2, this release reads up to 1"


def test_a_release_may_extend_a_row_and_not_owe_less_than_open_runs_began_with() -> None:
    def old(name: str, **row: Any) -> OpenRow:
        return OpenRow(name, "0", 3, (f"recov_{name} of thing:t1",), {"id": name, "cases": ["stuck"], **row})

    kept = [old("T1", compensations=["reverse·side_effect"]), old("T2", compensations=[])]
    assert broken_promises(DOMAIN.matrix, kept) == []
    gone = [
        old("T1", compensations=["reverse·side_effect", "cancel·decision"]),
        old("T2", compensations=[], owed=["reverse·external_call"]),
        old("T9", compensations=[]),
        msgspec.structs.replace(old("T1"), row=None, runs=1),
        old("T1", books=["meters"]),
        old("T2", exhausts="other"),
    ]
    assert broken_promises(DOMAIN.matrix, gone) == [
        "T1 (matrix 0) has no compensations cancel·decision any more: recov_T1 of thing:t1 and 2 more",
        "T2 (matrix 0) has no owed reverse·external_call any more: recov_T2 of thing:t1 and 2 more",
        "T9 (matrix 0) is not built in this release: recov_T9 of thing:t1 and 2 more",
        "T1 (matrix 0) is not stored as it was declared: recov_T1 of thing:t1",
        "T1 (matrix 0) has no books meters any more: recov_T1 of thing:t1 and 2 more",
        "T2 (matrix 0) has no exhausts other any more: recov_T2 of thing:t1 and 2 more",
    ]


def test_an_actor_that_another_creates_is_of_the_shape_that_this_release_writes() -> None:
    made = turn()
    made.spawn("thing", "t2", Thing(state="on"))
    assert [(each.state.version, each.state.v) for each in made.spawned] == [(1, THING.v)]
    assert THING.v == 2
    with pytest.raises(Bug, match="no domain has a kind 'ghost'"):
        made.spawn("ghost", "g1", Thing(state="on"))


def test_states_that_were_not_touched_lately_are_kept_as_their_bytes() -> None:
    store = Store({"thing": THING}, most_decoded=2)
    names = [f"t{number}" for number in range(5)]
    for name in names:
        store.load("thing", name, b'{"state":"on","version":7,"color":"blue"}')
    first = store.get("thing", "t0")
    assert isinstance(first, Thing)
    changed = msgspec.structs.replace(first, version=8, colour="green", timers={"leave": 5}, retrying=frozenset({"x"}))
    store.put("thing", "t0", changed)
    assert store.get("thing", "t0") is changed
    for name in names[1:]:
        assert store.get("thing", name) == Thing(state="on", version=7, v=2, colour=f"blue of {name}")
    assert store.get("thing", "t0") is not changed
    assert store.get("thing", "t0") == changed
    # to go through all of them decodes none to stay
    kept = store.get("thing", "t0")
    assert [identifier for identifier, _ in store.items("thing")] == names
    assert store.get("thing", "t0") is kept
    # and one that has ended is let go
    store.put("thing", "t0", msgspec.structs.replace(changed, state="off", timers={}))
    assert (store.get("thing", "t0"), store.counts()) == (None, {"thing": 4})


def test_a_state_that_grows_without_bound_is_a_bug() -> None:
    decision = turn(Thing(state="on"))
    decision.set(colour="x" * MAX_BODY)
    with pytest.raises(Bug, match="what grows with time belongs into rows"):
        decision.build()
