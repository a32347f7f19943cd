"""Release: the clock stops when it is accepted, the customer is locked out, then the rental ends (R04).

A paused allocation takes a release too: its instant stands in the state, and counts when the allocation goes on.
"""

from actors.allocation.messages import ReleaseAllocation
from actors.allocation.r02_setup import fail
from actors.allocation.r03_activation import meter_row
from actors.allocation.r04_cleanup import LOCK, LOCKOUT, begin_cleanup
from actors.allocation.state import Allocation, ssh_args, user_ref
from actors.tables import AssignmentRow
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.notify import notify
from amends.turn.recovery import failed_step


def release(s: Allocation, m: ReleaseAllocation, d: Decision) -> None:
    """A caller releases. Whatever the state, the answer is ok and says when it was accepted."""
    accepted = s.accepted_us or d.now_us
    if s.state in ("released", "failed"):
        d.reply(already_terminal=True, **({"accepted_us": s.accepted_us} if s.accepted_us else {}))
        return
    if s.paused:
        _note(s, d, accepted)
    elif s.state == "requested":
        d.set(accepted_us=accepted, leaving="user")
        fail(d.state, d, "cancelled")
    elif s.state == "active":
        begin_release(s, d, accepted)
    elif s.accepted_us is None:
        d.set(accepted_us=accepted, leaving="user")
        d.audit("allocation.release_accepted")
    d.reply(accepted_us=accepted)


def _note(s: Allocation, d: Decision, accepted_us: int) -> None:
    """Nothing of a paused allocation moves; its timer waits until its case is resolved."""
    if s.accepted_us is None:
        d.set(accepted_us=accepted_us, leaving="user")
        d.audit("allocation.release_accepted", details={"paused": True})
        d.timer("leave", accepted_us)


def leave(s: Allocation, d: Decision) -> None:
    """A release that was accepted during set-up, or while the allocation was paused, is taken up now."""
    if s.state == "active":
        begin_release(s, d, s.accepted_us or d.now_us)
    elif s.state == "requested":
        fail(s, d, "cancelled")


def begin_release(s: Allocation, d: Decision, accepted_us: int) -> None:
    """The meter stops at the accepted time; one accepted before the start bills nothing."""
    stopped = max(accepted_us, s.activated_us or accepted_us)
    d.to(
        "releasing", cause="release", accepted_us=accepted_us, release_cause=s.leaving or "user", stopped_us=stopped,
        billing_state="stopped",
    )  # fmt: skip
    d.row(meter_row(d.state, d.id, "release"))
    d.step(LOCK, f"node:{s.node_id}", ssh_args(s, d.id), key=f"{d.id}:lock")


def locked_out(s: Allocation, m: StepDone, d: Decision) -> None:
    """The lock has ended, well or not: the release commits either way, the rest of the cleanup follows."""
    if m.name != LOCK or s.node_id is None:
        return
    d.to("released", ended_us=d.now_us, locked=m.ok)
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
    begin_cleanup(d, d.context.matrix.row_of(LOCK).id)
    notify(
        d, "allocation.released", account_id=s.account_id, state="released", cause="release", stopped_us=s.stopped_us
    )
