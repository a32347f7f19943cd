"""The node of a rental is lost: the meter stops where the policy says, the rental fails, its user is owed (R08).

Before `active` it takes the way of R02. One that has ended, or is about to, may only be proved to have ended earlier:
its stop falls. The user is removed when the node is back, and recorded in the run of the node, which is told.
"""

from actors.allocation import attachments, billing, r02_setup
from actors.allocation.r04_cleanup import LOCK, begin_cleanup
from actors.allocation.release import fail
from actors.allocation.state import Allocation
from actors.between import NodeLost, same_life
from actors.money.policy import Cause
from amends.turn.decision import Decision
from amends.turn.recovery import Run, begin_run, failure, find_run

STEP = "node.verdict"
CAUSES: dict[str, Cause] = {"node_offline": "node_offline", "node_rebooted": "node_rebooted"}


def lost(s: Allocation, m: NodeLost, d: Decision) -> None:
    """The node is lost, at the epoch under which this allocation had it."""
    if s.node_id != m.node_id or not same_life(s.setup.node_epoch, m.epoch):
        return
    own = ""
    if s.state in ("provisioning", "activating"):
        _before_active(s, m, d)
    elif s.state == "active":
        own = _active(s, m, d)
    elif s.billing.state == "stopped":
        _ended(m, d)
    attachments.leave(d, "node_lost", own or m.failure_id, hop=1 if own else 0)


def _before_active(s: Allocation, m: NodeLost, d: Decision) -> None:
    """There is no use in an inline undo: what may be there is owed, and removed when the node is back."""
    if s.setup.failing:
        return  # its undo is under way, and ends as it does with any other node that does not answer
    run = r02_setup.begin_undo(d, f"node:{m.node_id}")
    r02_setup.rolled_back(d, run, "node_offline", owed=bool(s.owed))


def _active(s: Allocation, m: NodeLost, d: Decision) -> str:
    """The id of its failure."""
    run, failure_id = _run(m, d)
    stop_us, accepted_us = _stop_us(m, d), s.ending.accepted_us  # of a release that came while it was paused
    end = billing.stop(d, stop_us if accepted_us is None else min(stop_us, accepted_us), CAUSES[m.cause])
    billing.record(d, run, end.overrun, end.policy_credit, stopped_us=end.stop_us)
    fail(s, d, m.cause)
    begin_cleanup(d, d.context.matrix.row_of(LOCK).id)
    run.degrade()
    return failure_id


def _ended(m: NodeLost, d: Decision) -> None:
    under_way = find_run(d, d.context.matrix.row_of(STEP).id) is not None
    found = billing.lowered(d, _stop_us(m, d), CAUSES[m.cause])
    if found is None:
        return
    run, _ = _run(m, d)
    billing.record(d, run, found.overrun, 0, stopped_us=found.stop_us, lowered=True)
    if not under_way:
        run.end("recovered", billing.net(d))


def _stop_us(m: NodeLost, d: Decision) -> int:
    """Where the policy has such a rental end: at the last sign of life, or at this very turn."""
    return billing.end_us(d, CAUSES[m.cause], "", d.now_us, m.beat_us)


def _run(m: NodeLost, d: Decision) -> tuple[Run, str]:
    """The allocation's own run, joined to the node's by its cause and by the trace of the verdict; and its failure."""
    span = d.did(STEP, 1, False, d.now_us, m.cause, f"the node {m.node_id} is lost")
    run = begin_run(d, d.context.matrix.row_of(STEP).id, original=(d.trace_id, span))
    failure_id = failure(
        d, m.cause, f"the node {m.node_id} is lost", component=STEP, span_id=span, failure_type="timeout",
        severity="high", cause_ref=f"failure:{m.failure_id}", hop=1, run=run,
    )  # fmt: skip
    run.caused_by(failure_id)
    return run, failure_id
