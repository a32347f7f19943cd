"""Release: the clock stops when it is accepted, the customer is locked out, then the rental ends (R04); or it fails.

A paused allocation takes a release too: its instant stands in the state, and counts when the allocation goes on.
"""

from actors.allocation import billing
from actors.allocation.messages import ReleaseAllocation
from actors.allocation.r04_cleanup import LOCK, LOCKOUT, begin_cleanup
from actors.allocation.state import Allocation, ssh_args, user_ref
from actors.tables import AssignmentRow
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.notify import notify
from amends.turn.recovery import failed_step


def release(s: Allocation, m: ReleaseAllocation, d: Decision) -> None:
    """A caller releases. Whatever the state, the answer is ok and says when it was accepted."""
    known = s.ending.accepted_us
    accepted = known or d.now_us
    if s.state in ("released", "failed"):
        d.reply(already_terminal=True, **({"accepted_us": known} if known else {}))
        return
    if s.paused:
        _note(s, d, accepted)
    elif s.state == "requested":
        d.part("ending", accepted_us=accepted, leaving="user")
        fail(d.state, d, "cancelled")
    elif s.state == "active":
        begin_release(s, d, accepted)
    elif known is None:
        d.part("ending", accepted_us=accepted, leaving="user")
        d.audit("allocation.release_accepted")
    d.reply(accepted_us=accepted)


def _note(s: Allocation, d: Decision, accepted_us: int) -> None:
    """Nothing of a paused allocation moves; its timer waits until its case is resolved."""
    if s.ending.accepted_us is None:
        d.part("ending", accepted_us=accepted_us, leaving="user")
        d.audit("allocation.release_accepted", details={"paused": True})
        d.timer("leave", accepted_us)


def leave(s: Allocation, d: Decision) -> None:
    """A release that was accepted during set-up, or while the allocation was paused, is taken up now."""
    if s.state == "active":
        begin_release(s, d, s.ending.accepted_us or d.now_us)
    elif s.state == "requested":
        fail(s, d, "cancelled")


def begin_release(s: Allocation, d: Decision, accepted_us: int) -> None:
    """The meter stops at the accepted time; one accepted before the start bills nothing."""
    d.part("ending", accepted_us=accepted_us, cause=s.ending.leaving or "user")
    d.to("releasing", cause="release")
    billing.stop(d, max(accepted_us, s.rental.activated_us or accepted_us), "release")
    d.step(LOCK, f"node:{s.node_id}", ssh_args(s, d.id), key=f"{d.id}:lock")


def locked_out(s: Allocation, m: StepDone, d: Decision) -> None:
    """The lock has ended, well or not: the release commits either way, the rest of the cleanup follows."""
    if m.name != LOCK or s.node_id is None:
        return
    d.part("ending", ended_us=d.now_us)
    d.to("released")
    d.row(AssignmentRow(d.id, s.node_id, "ended", d.now_us, d.now_us))
    if not m.ok:
        run = failed_step(d, m)
        run.compensate(
            "compensate", "side_effect", "user-create", user_ref(s, d.id), "partial", of=m.ref, cause=run.id, attempt=0,
            metadata={"owed": "user-lock, user-remove"},
        )  # fmt: skip
        evidence = {"node_id": s.node_id, "code": m.outcome.code, "message": m.outcome.message[:300]}
        run.case(LOCKOUT, evidence=evidence)
        run.degrade()
    begin_cleanup(d, d.context.matrix.row_of(LOCK).id, locked=m.ok)
    notify(
        d, "allocation.released", account_id=s.account_id, state="released", cause="release",
        stopped_us=s.billing.stopped_us,
    )  # fmt: skip


def fail(s: Allocation, d: Decision, code: str) -> None:
    """Into `failed`, the assignment over, the customer told."""
    if s.node_id is not None:
        d.row(AssignmentRow(d.id, s.node_id, "ended", d.now_us, d.now_us))
    accepted = {"cause": s.ending.leaving} if s.ending.leaving else {}  # a release, however it ended
    d.part("ending", ended_us=d.now_us, **accepted)
    d.to("failed", cause=code, failure_code=code)
    d.cancel("deadline", "activate")
    notify(d, "allocation.failed", account_id=s.account_id, state="failed", cause=code, failure_code=code)
