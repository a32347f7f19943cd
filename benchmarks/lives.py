"""The benchmark's own domain: a life of three steps, done or undone, on the kernel; and a counter for plain turns."""

from msgspec import Struct

from amends.delivery.domain import DELIVERY_KINDS, DELIVERY_STEPS
from amends.domain.domain import Domain
from amends.domain.kinds import ActorKind, ActorState
from amends.domain.matrix import Matrix, MatrixRow
from amends.domain.steps import StepSpec
from amends.ports.steps import Outcome, StepCall
from amends.turn.decision import Decision
from amends.turn.messages import StepDone, TimerFired
from amends.turn.recovery import begin_run, failed_step

STEPS = ("bench.one", "bench.two", "bench.three")


class Life(ActorState, frozen=True, kw_only=True):
    """Three steps in a row; `doomed` fails at the third and undoes the two before."""

    doomed: bool = False


class Begin(Struct, frozen=True):
    """Start a life."""

    doomed: bool = False


class Touch(Struct, frozen=True):
    """One plain turn."""


def _begin(s: Life | None, m: Begin, d: Decision) -> None:
    d.create(Life(state="running", doomed=m.doomed))
    d.step(STEPS[0], d.ref, {}, undo={"of": 0})


def _touch(s: Life | None, m: Touch, d: Decision) -> None:
    if s is None:
        d.create(Life(state="idle"))
    else:
        d.set(doomed=not s.doomed)


def _woken(s: Life, m: TimerFired, d: Decision) -> None:
    d.set(doomed=not s.doomed)


def _done(s: Life, m: StepDone, d: Decision) -> None:
    if s.state == "running":
        if not m.ok:
            d.to("undoing")
            failed_step(d, m).undo()
        elif m.name == STEPS[2]:
            d.to("done", owed=())
        else:
            number = STEPS.index(m.name) + 1
            d.step(STEPS[number], d.ref, {"fail": s.doomed and m.name == STEPS[1]}, undo={"of": number})
        return
    run = begin_run(d, "B01")
    owed = s.owed[-1]
    run.compensate(
        "reverse", "side_effect", owed.what, f"{d.ref}/step:{owed.args['of']}", "success", of=owed.of, cause=run.id
    )
    d.set(owed=s.owed[:-1])
    if not run.undo():
        run.end("recovered")
        d.to("undone")


ROW = MatrixRow(
    id="B01", name="bench", step="bench", failure_point="bench", detection="bench", action="undo", owner="bench",
    entity="life", covers=(*STEPS, "bench.undo"), compensations=("reverse·side_effect",), budget=(), billing="none",
    failure_types=("error", "timeout"),
    exhaustion="none", code=__name__,
)  # fmt: skip
DELIVERY = MatrixRow(
    id="B02", name="delivery", step="bench", failure_point="bench", detection="bench", action="retry", owner="bench",
    entity="outbox", covers=("outbox.publish", "notification.publish"), compensations=(), budget=(), billing="none",
    exhaustion="none", code=__name__,
)  # fmt: skip

LIFE = ActorKind(
    name="life",
    state_type=Life,
    states={"idle": "rest", "running": "step", "undoing": "step bench.undo", "done": "end", "undone": "end"},
    transitions={
        ("", "running"): "begin", ("", "idle"): "touch", ("running", "done"): "three steps done",
        ("running", "undoing"): "a step failed", ("undoing", "undone"): "undone", ("idle", "running"): "begin",
    },
    handlers={Begin: _begin, Touch: _touch, StepDone: _done, TimerFired: _woken},
    creates=frozenset({Begin, Touch}),
)  # fmt: skip

BENCH = Domain(
    name="bench",
    kinds=(LIFE, *DELIVERY_KINDS),
    steps=(
        *(StepSpec(name=name, adapter="bench", undo="bench.undo") for name in STEPS),
        StepSpec(name="bench.undo", adapter="bench", no_undo="it is the undo"),
        *DELIVERY_STEPS,
    ),
    matrix=Matrix("bench", (ROW, DELIVERY)),
)


class BenchRunner:
    """Does a step at once, or fails it where the arguments say so."""

    async def run(self, call: StepCall) -> Outcome:
        """Immediately."""
        if call.args.get("fail"):
            return Outcome("failed", "bench", "it was to fail", may_have_run=False)
        return Outcome("done")
