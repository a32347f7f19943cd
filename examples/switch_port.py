"""A whole domain to copy: a switch port is bound to a machine over two steps, or unbound again when one fails.

    python -m examples.switch_port

runs it on a simulated journal in virtual time and prints what became of two ports. `docs/` and ARCHITECTURE.md say what
each part is; `tests/kernel/` runs the same domain on a real Postgres.
"""

import asyncio
import random
from collections.abc import Sequence

from msgspec import Struct

from adapters.simulated.journal import Database, SimulatedJournal
from adapters.simulated.lease import SimulatedLease
from adapters.simulated.loop import VirtualLoop
from amends.delivery.domain import DELIVERY_KINDS, DELIVERY_STEPS
from amends.domain.domain import Domain
from amends.domain.kinds import ActorKind, ActorState
from amends.domain.matrix import CaseKind, Matrix, MatrixRow
from amends.domain.steps import StepSpec
from amends.kernel import Kernel
from amends.ports.bus import Outgoing, Published
from amends.ports.clock import Sources
from amends.ports.steps import Outcome, StepCall
from amends.runtime.trunk import Supervisor, SupervisorSpec
from amends.turn.decision import Decision
from amends.turn.messages import Envelope, StepDone
from amends.turn.recovery import begin_run, failed_step
from amends.values.limits import Limits

TIMING: dict[str, int | tuple[int, int]] = {
    "outbox_poll_ms": 50, "outbox_lag_alarm_ms": 500, "outbox_backoff_ms": (50, 500), "notification_tries": 3,
    "notification_backoff_ms": (50, 200),
}  # fmt: skip


class Port(ActorState, frozen=True, kw_only=True):
    """A port and the machine behind it."""

    machine: str


class Bind(Struct, frozen=True):
    """Bind the port to this machine: the VLAN first, then the link."""

    machine: str


def bind(s: Port | None, m: Bind, d: Decision) -> None:
    """The first step, and with its intent what would undo it."""
    d.create(Port(state="binding", machine=m.machine))
    d.step("vlan.set", d.ref, {"machine": m.machine}, undo={"machine": m.machine})


def step_done(s: Port, m: StepDone, d: Decision) -> None:
    """A step has ended: on to the next, or back over what is owed."""
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
        failed_step(d, m).undo()
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
    """A row of the matrix that covers these steps."""
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
        """One try; each is idempotent."""
        self.calls.append(call.name)
        if call.name in self.failing:
            return Outcome("failed", "no_link", "the port stays down")
        if call.name == "vlan.set":
            self.vlan.add(call.args["machine"])
        elif call.name == "vlan.clear":
            self.vlan.discard(call.args["machine"])
        return Outcome("done")


class Bus:
    """Takes every event."""

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        """It is taken."""
        return Published("ok")

    async def publish_together(self, messages: Sequence[Outgoing]) -> Published:
        """They are taken."""
        return Published("ok")


async def told(switch: Switch, database: Database, loop: VirtualLoop) -> dict[str, str]:
    """A runtime with this domain, told to bind two ports, the link of the second failing; how both ended."""
    sources = Sources(loop.now_us, loop.now_us, random.Random(1).randbytes)  # noqa: S311 - a simulated world's
    kernel = Kernel((SWITCH,), Limits(TIMING), sources=sources)
    lease = SimulatedLease(database, loop.time)
    await lease.acquire()
    await kernel.open(SimulatedJournal(database, lease.epoch, loop.now_us), lease)
    await kernel.load()
    kernel.wire({"switch": switch, "bus": switch}, Bus())
    await kernel.resume()
    tree = asyncio.create_task(Supervisor(SupervisorSpec(name="switch", children=kernel.children())).run())
    for port, machine in (("p1", "m1"), ("p2", "m2")):
        kernel.engine.tell("port", port, Envelope(Bind(machine), priority=True))
        await asyncio.sleep(1)
        switch.failing = {"port.up"}
    await kernel.drain(5)
    tree.cancel()
    await asyncio.wait([tree])
    await kernel.aclose()
    return {name: write.state for (kind, name), write in database.tables.states.items() if kind == "port"}


def main() -> dict[str, str]:
    """See above."""
    loop, database, switch = VirtualLoop(), Database((SWITCH,)), Switch()
    try:
        ports = loop.run_until_complete(told(switch, database, loop))
    finally:
        loop.bury()
        loop.close()
    undone = [row["compensation_type"] for row in database.tables.rows["compensation"].values()]
    print(f"ports: {ports}; on the VLAN: {sorted(switch.vlan)}; compensations: {undone}")
    return ports


if __name__ == "__main__":
    main()
