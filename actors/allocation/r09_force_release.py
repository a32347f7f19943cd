"""An operator ends a rental while usage is active: the meter stops at the accepted time, a refund rule may pay (R09).

Before `active` there is no meter to stop: it takes the way of a release, and writes that row's records.
"""

from actors.allocation import billing
from actors.allocation.messages import ForceRelease
from actors.allocation.release import accept, begin_release, fail
from actors.allocation.state import Allocation
from actors.money.settlement import Settlement
from amends.turn.decision import Decision
from amends.turn.recovery import Run, begin_run

STEP = "ops.force_release"


def force_release(s: Allocation, m: ForceRelease, d: Decision) -> None:
    """Whatever the state, the answer is ok and says when it was accepted."""
    run = _run(d) if s.state == "active" and not s.paused else None
    d.audit("allocation.force_release", reason=m.reason, details={"reason_code": m.reason_code, "state": s.state})
    end = accept(s, d, "force", m.reason_code)
    if run is not None and end is not None:
        _forced(d, run, end)


def leave(s: Allocation, d: Decision) -> None:
    """A release that was accepted during set-up, or while the allocation was paused, is taken up now."""
    by = s.ending.leaving or "user"
    if s.state == "active":
        run = _run(d) if by == "force" else None
        end = begin_release(s, d, s.ending.accepted_us or d.now_us, by, s.ending.reason)
        if run is not None:
            _forced(d, run, end)
    elif s.state == "requested":
        fail(s, d, "cancelled")


def _run(d: Decision) -> Run:
    return begin_run(d, d.context.matrix.row_of(STEP).id, trigger_type="policy", trigger_ref=d.ref)


def _forced(d: Decision, run: Run, end: Settlement) -> None:
    """What it stopped, and what it gave back."""
    billing.record(d, run, end.overrun, end.policy_credit, stopped_us=end.stop_us)
    run.end("recovered", billing.net(d))
