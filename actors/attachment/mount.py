"""The mount on its node as the rows see it: the tries to unmount it, and the debt that its node has of it."""

from actors.attachment.state import Attachment, mount_args, mount_ref
from actors.between import DebtSettled
from actors.facts import facts
from actors.tables import DebtRow
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.recovery import Run
from amends.values import ids

STALE = "stale_epoch"
MOUNT, PROBE, UNMOUNT = "agent.mount", "agent.probe_mount", "agent.unmount"


def unmount(d: Decision, run: Run | None, attempt: int, *, after_us: int = 0) -> None:
    """One try to unmount, in the action of a run that says so."""
    s: Attachment = d.state
    node = facts(d).node(s.node_id or "")
    # The node as it is now: its epoch has risen with each loss and restore; the attempt says whose mount it is.
    args = mount_args(s, d.id) | ({"node_epoch": node.epoch} if node is not None else {})
    trace = None
    if run is not None:
        action_id, trace = run.plan()
        args["action_id"] = action_id
    d.part("mount", tries=attempt)
    d.step(UNMOUNT, mount_ref(s, d.id), args, attempt=attempt, after_us=after_us, key=f"{s.attempt_id}:unmount",
           trace=trace)  # fmt: skip


def again_if_stale(d: Decision, run: Run | None, m: StepDone) -> bool:
    """Asked under an epoch that its node has left meanwhile nobody did anything: out it goes again, as the same try."""
    s: Attachment = d.state
    node = facts(d).node(s.node_id or "")
    if m.outcome.code != STALE or node is None or m.args["node_epoch"] == node.epoch:
        return False
    action_id = m.args.get("action_id", "")
    trace = (run.trace_id, ids.span_id("action", action_id)) if run is not None and action_id else None
    d.step(UNMOUNT, m.target, {**m.args, "node_epoch": node.epoch}, attempt=m.attempt, key=f"{s.attempt_id}:unmount",
           trace=trace)  # fmt: skip
    return True


def is_absent(m: StepDone) -> bool:
    """The agent has seen that it is not mounted, whatever else it says."""
    observed = m.outcome.data.get("observed")
    return isinstance(observed, dict) and observed.get("mounted") is False


def holders(m: StepDone) -> list[str]:
    """What an agent named as in the way, as text."""
    return [str(each)[:200] for each in (m.outcome.data.get("holders") or [])][:32]


def owe(d: Decision) -> None:
    """The node owes the unmount from now on, unless it does already; what is unmounted it does not owe."""
    s: Attachment = d.state
    if s.mount.unmounted:
        settle(d)
    elif not s.mount.debt_id:
        d.part("mount", debt_id=d.mint("debt"), debt_since_us=d.now_us)
        d.set(owing=True)
        d.row(_debt(d))


def settle(d: Decision) -> None:
    """It owes it no more."""
    s: Attachment = d.state
    if s.mount.debt_id:
        d.row(_debt(d, d.now_us))
        d.part("mount", debt_id="", debt_since_us=0)
        d.tell("node", s.node_id or "", DebtSettled())
    d.set(owing=False)


def _debt(d: Decision, settled_us: int | None = None) -> DebtRow:
    s: Attachment = d.state
    return DebtRow(
        s.mount.debt_id, s.node_id or "", "mount", mount_ref(s, d.id), s.allocation_id, d.id, s.mount.tries,
        s.mount.debt_since_us, settled_us,
    )  # fmt: skip
