"""The node of an attachment is lost: access is taken back first, as a fence; the mount is its node's (R08)."""

from actors.attachment import r11_grant, r13_detach
from actors.attachment.state import Attachment
from actors.between import LeaveNode, MountLeft
from amends.turn.decision import Decision
from amends.turn.recovery import begin_run, failure

STEP = "node.verdict"


def lost(s: Attachment, m: LeaveNode, d: Decision) -> None:
    """Whatever the state; what has ended, or was given up, stays as it is."""
    if s.state in ("requested", "validated", "granted"):
        r13_detach.before_mount(s, d, "node_lost")
    elif s.state in ("mounting", "attached") or (s.state == "detaching" and s.leaving.cause != "node_lost"):
        _fence(s, m, d)


def _fence(s: Attachment, m: LeaveNode, d: Decision) -> None:
    row = d.context.matrix.row_of(STEP).id
    span = d.did(STEP, 1, False, d.now_us, "node_lost", f"the node {s.node_id} is lost")
    run = begin_run(d, row, original=(d.trace_id, span))
    run.caused_by(failure(
        d, "node_lost", f"the node {s.node_id} is lost", component=STEP, span_id=span, failure_type="timeout",
        severity="high", cause_ref=f"failure:{m.failure_id}" if m.failure_id else "", hop=2, run=run,
    ))  # fmt: skip
    d.part("leaving", cause="node_lost", key=row)
    if s.mount.made_by and not s.mount.unmounted:
        d.tell("node", s.node_id or "", MountLeft(d.id, s.mount.made_by))
    if s.state != "detaching":
        d.to("detaching", cause="node_lost")
    r11_grant.leave(d, run, fence=True)
