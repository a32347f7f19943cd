"""A domain that is not renting: a switch port is bound to a machine over two steps, or unbound again."""

from msgspec import Struct

from amends.delivery.domain import DELIVERY_KINDS, DELIVERY_STEPS
from amends.domain.domain import Domain
from amends.domain.kinds import ActorKind, ActorState
from amends.domain.matrix import CaseKind, Matrix, MatrixRow
from amends.domain.steps import StepSpec
from amends.ports.steps import Outcome, StepCall
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.recovery import begin_run, failed_step


class Port(ActorState, frozen=True, kw_only=True):
    machine: str


class Bind(Struct, frozen=True):
    machine: str


def bind(s: Port | None, m: Bind, d: Decision) -> None:
    d.create(Port(state="binding", machine=m.machine))
    d.step("vlan.set", d.ref, {"machine": m.machine}, undo={"machine": m.machine})


def step_done(s: Port, m: StepDone, d: Decision) -> None:
    if m.name == "vlan.clear":
        owed = s.owed[0]
        run = begin_run(d, "S1")
        run.compensate("reverse", "side_effect", owed.what, d.ref, "success" if m.ok else "failure",
                       of=owed.of, cause=run.id, action_id=m.args["action_id"])  # fmt: skip
        if m.ok:
            d.undone(m.name, m.target)
            run.end("recovered")
        else:
            run.exhausted(d.ref, {"code": m.outcome.code})
        d.to("unbound")
    elif not m.ok:
        failed_step(d, m).undo(d)
    elif m.name == "vlan.set":
        d.step("port.up", d.ref, {"machine": s.machine}, undo={"machine": s.machine})
    else:
        d.to("bound")


PORT = ActorKind(
    name="port", state_type=Port,
    states={"binding": "step vlan.set or port.up", "bound": "forever", "unbound": "end"},
    transitions={("", "binding"): "bind", ("binding", "bound"): "both steps", ("binding", "unbound"): "undone"},
    handlers={Bind: bind, StepDone: step_done}, creates=frozenset({Bind}),
)  # fmt: skip


def row(row_id: str, covers: tuple[str, ...], cases: tuple[str, ...] = ()) -> MatrixRow:
    return MatrixRow(
        id=row_id, name="port", step="bind", failure_point="port stays down", detection="exit", action="clear",
        owner="net", entity="port", covers=covers, compensations=("reverse·side_effect",), budget=(), billing="none",
        failure_types=("error", "timeout"),
        exhaustion="port_stuck", cases=cases, exhausts="port_stuck" if cases else "", code=__name__,
    )  # fmt: skip


SWITCH = Domain(
    name="switch", kinds=(PORT, *DELIVERY_KINDS),
    steps=(
        StepSpec(name="vlan.set", adapter="switch", undo="vlan.clear"),
        StepSpec(name="port.up", adapter="switch", undo="vlan.clear"),
        StepSpec(name="vlan.clear", adapter="switch", no_undo="it is the undo"), *DELIVERY_STEPS,
    ),
    matrix=Matrix("1", (row("S1", ("vlan.set", "port.up", "vlan.clear"), ("port_stuck",)),
                        row("S2", ("outbox.publish", "notification.publish")))),
    cases=(CaseKind("port_stuck", ("ops.case.resolve",), "port_stuck.md"),),
)  # fmt: skip


class Switch:
    """The simulated switch: which machine is on the VLAN, what was asked, and what shall fail."""

    def __init__(self) -> None:
        self.vlan: set[str] = set()
        self.calls: list[str] = []
        self.failing: set[str] = set()

    async def run(self, call: StepCall) -> Outcome:
        self.calls.append(call.name)
        if call.name in self.failing:
            return Outcome("failed", "no_link", "the port stays down")
        if call.name == "vlan.set":
            self.vlan.add(call.args["machine"])
        elif call.name == "vlan.clear":
            self.vlan.discard(call.args["machine"])
        return Outcome("done")
