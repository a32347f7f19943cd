"""Release: the clock stops when it is accepted, the customer is locked out, then the rental ends (R04); or it fails.

A paused allocation takes a release too: its instant stands in the state, and counts when the allocation goes on.
Whoever asks for it: what an operator's does beside is `r09_force_release`.
"""

from actors.allocation import attachments, billing
from actors.allocation.messages import ReleaseAllocation
from actors.allocation.r04_cleanup import LOCK, LOCKOUT, begin_cleanup
from actors.allocation.state import Allocation, ssh_args, user_ref
from actors.between import AttachmentSettled
from actors.facts import facts
from actors.money.policy import Cause
from actors.money.settlement import Settlement
from actors.tables import AssignmentRow
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.notify import notify
from amends.turn.recovery import failed_step

ENDED = ("released", "failed")
STOP_CAUSE: dict[str, Cause] = {"user": "release", "force": "force_release"}


def release(s: Allocation, m: ReleaseAllocation, d: Decision) -> None:
    """A caller releases. Whatever the state, the answer is ok and says when it was accepted."""
    accept(s, d, "user")


def accept(s: Allocation, d: Decision, by: str, reason: str = "") -> Settlement | None:
    """It is accepted, by the `user` or by `force`; what the end of a running meter comes to."""
    known = s.ending.accepted_us
    accepted, end = known or d.now_us, None
    if s.state in ENDED:
        d.reply(already_terminal=True, **({"accepted_us": known} if known else {}))
        return None
    if s.paused:
        _note(s, d, accepted, by, reason)
    elif s.state == "requested":
        d.part("ending", accepted_us=accepted, leaving=by, reason=reason)
        fail(d.state, d, "cancelled")
    elif s.state == "active":
        end = begin_release(s, d, accepted, by, reason)
    elif known is None:
        d.part("ending", accepted_us=accepted, leaving=by, reason=reason)
        d.audit("allocation.release_accepted", details={"by": by})
    d.reply(accepted_us=accepted)
    return end


def _note(s: Allocation, d: Decision, accepted_us: int, by: str, reason: str) -> None:
    """Nothing of a paused allocation moves; its timer waits until its case is resolved."""
    if s.ending.accepted_us is None:
        d.part("ending", accepted_us=accepted_us, leaving=by, reason=reason)
        d.audit("allocation.release_accepted", details={"paused": True, "by": by})
        d.timer("leave", accepted_us)


def begin_release(s: Allocation, d: Decision, accepted_us: int, by: str, reason: str = "") -> Settlement:
    """The meter stops at the accepted time; one accepted before the start bills nothing."""
    d.part("ending", accepted_us=accepted_us, cause=by, reason=reason)
    cause = STOP_CAUSE[by]
    d.to("releasing", cause=cause)
    beat_us = facts(d).last_seen_us(s.node_id or "")
    end = billing.stop(d, billing.end_us(d, cause, reason, accepted_us, beat_us), cause, reason)
    d.step(LOCK, f"node:{s.node_id}", ssh_args(s, d.id), key=f"{d.id}:lock")
    return end


def locked_out(s: Allocation, m: StepDone, d: Decision) -> None:
    """The lock has ended, well or not: attachments are settled next, then the release commits."""
    if m.name != LOCK or s.node_id is None or s.ending.locked:
        return
    if not m.ok:
        run = failed_step(d, m)
        run.compensate(
            "compensate", "side_effect", "user-create", user_ref(s, d.id), "partial", of=m.ref, cause=run.id, attempt=0,
            metadata={"owed": "user-lock, user-remove"},
        )  # fmt: skip
        evidence = {"node_id": s.node_id, "code": m.outcome.code, "message": m.outcome.message[:300]}
        run.case(LOCKOUT, evidence=evidence)
        run.degrade()
    d.part("ending", locked="done" if m.ok else m.outcome.code or "failed")
    if not attachments.wait(d):
        finish(d)


def settled(s: Allocation, m: AttachmentSettled, d: Decision) -> None:
    """One has ended, or was given up; while the node owes its mount, a rental that has ended says so."""
    attachment = facts(d).attachment(m.attachment_id)
    stuck = {*s.ending.stuck} - {m.attachment_id}
    if attachment is not None and attachment.mount.debt_id:
        stuck.add(m.attachment_id)
    if stuck != {*s.ending.stuck}:
        d.part("ending", stuck=tuple(sorted(stuck)))
        d.set(cleanup_pending=s.state in ENDED and (s.owing or bool(stuck)))
    _finish_if_settled(d, {m.attachment_id})


def again(s: Allocation, d: Decision) -> None:
    """The timer: whoever is not settled is told again."""
    if s.state == "releasing" and s.ending.locked and attachments.wait(d):
        return
    _finish_if_settled(d, set())


def _finish_if_settled(d: Decision, but: set[str]) -> None:
    """`but`: who has just settled, which the index does not know yet."""
    s: Allocation = d.state
    if s.state == "releasing" and s.ending.locked and not {*facts(d).attachments_of(d.id)} - but:
        d.cancel(attachments.SETTLE)
        finish(d)


def finish(d: Decision) -> None:
    """The customer is locked out, nothing is attached: the release commits, the rest of the cleanup follows."""
    s: Allocation = d.state
    d.part("ending", ended_us=d.now_us)
    d.to("released")
    d.row(AssignmentRow(d.id, s.node_id or "", "ended", d.now_us, d.now_us))
    begin_cleanup(d, d.context.matrix.row_of(LOCK).id, locked=s.ending.locked == "done")
    notify(
        d, "allocation.released", account_id=s.account_id, state="released", cause=s.billing.cause or "release",
        **billing.told(d),
    )  # fmt: skip


def fail(s: Allocation, d: Decision, code: str) -> None:
    """Into `failed`, the assignment over, the customer told."""
    if s.node_id is not None:
        d.row(AssignmentRow(d.id, s.node_id, "ended", d.now_us, d.now_us))
    accepted = {"cause": s.ending.leaving} if s.ending.leaving else {}  # a release, however it ended
    d.part("ending", ended_us=d.now_us, **accepted)
    d.to("failed", cause=code, failure_code=code)
    d.cancel("deadline", "activate")
    notify(
        d, "allocation.failed", account_id=s.account_id, state="failed", cause=code, failure_code=code,
        **billing.told(d),
    )  # fmt: skip
