"""The node of an attachment is lost: access is taken back first, as a fence; the mount is its node's (R08)."""

from msgspec.structs import replace

from actors.attachment import r11_grant, r13_detach
from actors.attachment.state import Attachment
from actors.between import GrantGone, LeaveGrant, LeaveNode, MountLeft, Work
from actors.grant.state import grant_of
from amends.turn.decision import Decision
from amends.turn.recovery import Run, begin_run, failure, find_run

STEP = "node.verdict"


def lost(s: Attachment, m: LeaveNode, d: Decision) -> None:
    """Whatever the state; what has ended stays as it is, and so does what was given up, but without its access."""
    if s.state in ("requested", "validated", "granted"):
        r13_detach.before_mount(s, d, "node_lost")
    elif s.state in ("mounting", "attached") or (s.state == "detaching" and s.leaving.cause != "node_lost"):
        _fence(s, m, d)
    elif s.state == "detach_failed" and not s.leaving.fence.action_id and not s.leaving.fenced:
        _fence_given_up(s, m, d)


def _fence(s: Attachment, m: LeaveNode, d: Decision) -> None:
    run = _run(s, m, d)
    d.set(reason="node_lost")
    d.part("leaving", cause="node_lost", key=run.row.id)
    if s.mount.made_by and not s.mount.unmounted:
        d.tell("node", s.node_id or "", MountLeft(d.id, s.mount.made_by))
    if s.state != "detaching":
        d.to("detaching", cause="node_lost")
    r13_detach.leave(d, run, fence=True)


def _fence_given_up(s: Attachment, m: LeaveNode, d: Decision) -> None:
    """Only an operator leaves `detach_failed`, and the mount stays owed; the node has access no more."""
    action_id, (trace_id, span_id) = _run(s, m, d).plan()
    fence = Work(action_id, trace_id, span_id)
    d.part("leaving", fence=fence)
    d.tell("grant", grant_of(s.namespace_id, s.node_id or ""), LeaveGrant(d.id, fence, fence=True, again=True))


def fenced(s: Attachment, m: GrantGone, d: Decision) -> None:
    """The access of one that was given up is back; or the provider keeps it, which is one more thing for its case."""
    run = find_run(d, d.context.matrix.row_of(STEP).id)
    d.part("leaving", fence=Work(), fenced=m.result != "failed")
    if run is None:
        return
    r11_grant.record(replace(s, leaving=replace(s.leaving, work=s.leaving.fence)), d, run, m)
    if m.result == "failed":
        r13_detach.not_revoked(s, d, run, m)
        run.escalate(r13_detach.CASE, d.ref, r13_detach.evidence(s, m.code))
        run.end("failed")
    else:
        run.end("recovered")


def _run(s: Attachment, m: LeaveNode, d: Decision) -> Run:
    """The attachment's own, joined to the node's by its cause."""
    said = f"the node {s.node_id} is lost"
    span = d.did(STEP, 1, False, d.now_us, "node_lost", said)
    run = begin_run(d, d.context.matrix.row_of(STEP).id, original=(d.trace_id, span))
    run.caused_by(failure(
        d, "node_lost", said, component=STEP, span_id=span, failure_type="timeout", severity="high",
        cause_ref=f"failure:{m.failure_id}" if m.failure_id else "", hop=m.hop + 1, run=run,
    ))  # fmt: skip
    return run
