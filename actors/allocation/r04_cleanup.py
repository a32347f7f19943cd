"""The cleanup an allocation owes its node: a debt, bounded tries with back-off, a case at their end (R02, R03, R04).

While the node is suspect or offline the step is held and spends no try. The lock comes first where it is still
owed, and spends no try of its own.
"""

from typing import Any

from actors.allocation.messages import RetryCleanup
from actors.allocation.state import Allocation, create_ref, ssh_args, user_of, user_ref
from actors.between import CleanupLost, DebtSettled, Suspicion
from actors.tables import DebtRow
from amends.turn.cases import close_case
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.recovery import Run, begin_run, failed_step, find_run

CASE = "cleanup_exhausted"
LOCKOUT = "lockout_failed"
VERDICT, LOST = "node.verdict", ("node_offline", "node_rebooted")
SETTLED = DebtSettled()
LOCK, REMOVE = "ssh.user-lock", "ssh.user-remove"


def begin_cleanup(d: Decision, row: str, *, locked: bool = False) -> None:
    """Owe the removal of the user, locked out or not, from now on, and intend the first try."""
    d.set(owing=True, cleanup_pending=True)
    d.part("cleanup", locked=locked, attempts=0, run=row, debt_id=d.mint("debt"), debt_since_us=d.now_us)
    d.row(_debt(d))
    _try(d, 1)


def step_done(s: Allocation, m: StepDone, d: Decision) -> None:
    """A try of the cleanup, or its lock, has ended."""
    if not s.owing or m.name not in (LOCK, REMOVE) or not m.args.get("cleanup"):
        return
    if m.ok and m.name == LOCK:
        d.part("cleanup", locked=True)
        close_case(d, LOCKOUT, "the customer is locked out")
        _try(d, s.cleanup.attempts + 1)
    elif m.ok:
        _cleaned(s, m, d)
    else:
        _failed(s, m, d)


def retry(s: Allocation, m: RetryCleanup, d: Decision) -> None:
    """`ops.cleanup.retry`: the next try now; of a cleanup that was given up a new run with a new budget."""
    if not s.owing:
        d.refuse("illegal_transition", "this allocation owes no cleanup of its own")
    if CASE not in s.cases or s.cleanup.run in s.runs:
        d.audit("allocation.cleanup_retry", reason=m.reason, details={"tries": s.cleanup.attempts})
        d.hasten(f"node:{s.node_id}")
        return
    run = _begin(d, f"case:{s.cases[CASE]}")
    run.case(CASE, state="retrying", reason=m.reason)
    d.audit("allocation.cleanup_retry", reason=m.reason)
    d.part("cleanup", attempts=0, run=run.row.id, operator=d.env.actor)
    _try(d, 1)


def lost(s: Allocation, m: CleanupLost, d: Decision) -> None:
    """Settle the debt as cancelled: the node will never be seen again."""
    if not s.owing:
        return
    run = find_run(d, s.cleanup.run) or _begin(d, f"node:{s.node_id}")
    run.compensate(
        "cancel", "side_effect", "user-create", user_ref(s, d.id), "success", of=create_ref(s), cause=run.id,
        attempt=99, metadata={"acknowledged": "node retired"}, supersedes=s.cleanup.superseded,
    )  # fmt: skip
    run.end("recovered")
    _settle(d, m.reason)


def _row(d: Decision) -> str:
    return d.context.matrix.row_of(LOCK).id


def _begin(d: Decision, trigger_ref: str) -> Run:
    return begin_run(d, _row(d), trigger_type="policy", trigger_ref=trigger_ref)


def _try(d: Decision, attempt: int, *, after_us: int = 0) -> None:
    s: Allocation = d.state
    # A user that never became the customer's is removed at once.
    locked = s.cleanup.locked or s.rental.activated_us is None
    name = REMOVE if locked else LOCK
    run = find_run(d, s.cleanup.run)
    args: dict[str, Any] = {"cleanup": True}
    trace = None
    if run is not None:
        args["action_id"], trace = run.plan()
    # Of a set-up that the node's loss overtook, what it may have left is known only when its last step has ended.
    undo = d.undo_args(s.owed[-1]) if s.owed else ssh_args(s, d.id)
    d.step(
        name, f"node:{s.node_id}", {**undo, **args}, attempt=attempt, after_us=after_us,
        key=f"{d.id}:cleanup:{name}", trace=trace,
    )  # fmt: skip


def _cleaned(s: Allocation, m: StepDone, d: Decision) -> None:
    d.part("cleanup", attempts=s.cleanup.attempts + 1)
    run = find_run(d, s.cleanup.run)
    if run is not None:
        run.compensate(
            "reverse", "side_effect", "user-create", user_ref(s, d.id), "success", of=create_ref(s), cause=run.id,
            attempt=s.cleanup.attempts + 1, duration_ms=m.duration_ms, action_id=m.args.get("action_id", ""),
            metadata={"operator": s.cleanup.operator} if s.cleanup.operator else {},
            supersedes=s.cleanup.superseded,
        )  # fmt: skip
        run.end("recovered")
    lost = s.failure_code in LOST and s.rental.activated_us is not None
    _settle(d, "cleaned", DebtSettled(user_of(d.id), create_ref(s), m.duration_ms) if lost else SETTLED)


def _failed(s: Allocation, m: StepDone, d: Decision) -> None:
    tries = s.cleanup.attempts + 1
    run = failed_step(d, m, find_run(d, s.cleanup.run))
    d.part("cleanup", attempts=tries)
    d.row(_debt(d))
    run.retry(
        m.name.partition(".")[2], user_ref(s, d.id), False, attempt=tries, duration_ms=m.duration_ms,
        code=m.outcome.code, action_id=m.args.get("action_id", ""),
    )  # fmt: skip
    if s.cleanup.run == _row(d) and not run.newest(user_ref(s, d.id)):
        _compensate(s, d, run, "partial", 0, m)
    if tries < run.tries("cleanup_tries"):
        run.degrade()
        _try(d, tries + 1, after_us=run.wait_us("cleanup_backoff_ms", tries))
        return
    _compensate(s, d, run, "failure", tries, m)
    d.part("cleanup", superseded=run.newest(user_ref(s, d.id)))
    run.exhausted(d.ref, {"node_id": s.node_id, "tries": tries, "code": m.outcome.code})
    if s.node_id is not None:
        d.tell("node", s.node_id, Suspicion("cleanup_exhausted"))


def _compensate(s: Allocation, d: Decision, run: Run, outcome: Any, attempt: int, m: StepDone) -> None:
    run.compensate(
        "compensate", "side_effect", "user-create", user_ref(s, d.id), outcome, of=create_ref(s) or m.ref, cause=run.id,
        attempt=attempt, metadata={"code": m.outcome.code, "tries": d.state.cleanup.attempts},
    )  # fmt: skip


def _settle(d: Decision, reason: str, settled: DebtSettled = SETTLED) -> None:
    s: Allocation = d.state
    d.row(_debt(d, d.now_us))
    d.set(cleanup_pending=bool(s.ending.stuck), owing=False, owed=())
    operator = {"operator": s.cleanup.operator} if s.cleanup.operator else {}
    d.audit("allocation.cleanup_settled", reason=reason, details={"attempts": s.cleanup.attempts, **operator})
    close_case(d, CASE, reason)
    close_case(d, LOCKOUT, reason)
    loss = find_run(d, d.context.matrix.row_of(VERDICT).id)
    if loss is not None:
        loss.end("recovered")
    if s.node_id is not None:
        d.tell("node", s.node_id, settled)


def _debt(d: Decision, settled_us: int | None = None) -> DebtRow:
    s: Allocation = d.state
    return DebtRow(
        s.cleanup.debt_id or "", s.node_id or "", "user", user_ref(s, d.id), d.id, None, s.cleanup.attempts,
        s.cleanup.debt_since_us, settled_us,
    )  # fmt: skip
