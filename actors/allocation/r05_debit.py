"""A debit that is posted again: by its key and the amount of the formula it is told from one that is due (R05).

What stands in the ledger is the formula's (B1), so what a window was posted with is reckoned, not read.
"""

from typing import Any

from actors.allocation import billing
from actors.allocation.messages import PostWindow
from actors.allocation.state import Allocation
from actors.money.metering import Window
from amends.turn.decision import Decision
from amends.turn.recovery import Run, begin_run, failure

STEP = "billing.debit"
CASE = "billing_conflict"


def post_window(s: Allocation, m: PostWindow, d: Decision) -> None:
    """`ops.billing.post_window`: the next window that is due, or a refusal that leaves a record."""
    d.reply_entity = False
    if s.billing.meter_id is None:
        d.refuse("not_found", f"there is no meter {m.meter_id!r}", field="meter_id")
    due, posted = billing.next_window(d), billing.posted_window(d, m.window_start_us)
    d.reply(ledger_key=f"debit:{m.meter_id}:{m.window_start_us}", amount_minor=m.amount_minor)
    if posted is not None:
        _again(m, d, posted)
    elif billing.ends_past_stop(d, m.window_start_us):
        _refused(m, d, "window_after_stop", "the meter stopped; no window that ends past its stop is posted",
                 stopped_us=s.billing.stopped_us)  # fmt: skip
    elif due is None or (m.window_start_us, m.amount_minor) != (due.start_us, due.amount_minor):
        next_due = None if due is None else {"window_start_us": due.start_us, "amount_minor": due.amount_minor}
        _refused(m, d, "window_not_due", "the meter's next window is another one, or has another amount", due=next_due)
    else:
        billing.post_one(d, due)
        d.audit("billing.window.posted", _ref(m), reason=m.reason, details=_said(m))
        d.reply(duplicate=False)


def _again(m: PostWindow, d: Decision, posted: Window) -> None:
    """It stands in the ledger: a replay is acknowledged, another amount under its key is a conflict."""
    if posted.amount_minor == m.amount_minor:
        _record(m, d, "duplicate").end("recovered")
        d.reply(duplicate=True)
        return
    run = _record(m, d, "idempotency_mismatch", posted_minor=posted.amount_minor)
    run.case(CASE, f"meter:{m.meter_id}", evidence={
        **_said(m), "posted_minor": posted.amount_minor, "reason": m.reason}, reason=m.reason)  # fmt: skip
    run.end("recovered")
    text = f"the window is posted with {posted.amount_minor}, not with {m.amount_minor}"
    d.decline("idempotency_mismatch", text, field="amount_minor", posted_minor=posted.amount_minor)


def _refused(m: PostWindow, d: Decision, code: str, text: str, **details: Any) -> None:
    _record(m, d, code, **details).end("recovered")
    d.decline(code, text, field="window_start_us", **details)


def _record(m: PostWindow, d: Decision, code: str, **more: Any) -> Run:
    """The record of one refused delivery, in a run of its own."""
    cause = d.env.request_id
    run = begin_run(
        d, d.context.matrix.row_of(STEP).id, key=f"{STEP} {cause}", original=(d.trace_id, d.span_id),
        entity=f"meter:{m.meter_id}",
    )  # fmt: skip
    run.caused_by(failure(
        d, code, f"debit of {_ref(m)}: {code.replace('_', ' ')}", component=STEP, span_id=d.span_id,
        failure_type="violation", ref=_ref(m), run=run,
    ))  # fmt: skip
    run.compensate(
        "cancel", "state_change", "debit", _ref(m), "success", of=f"{d.trace_id}:{d.span_id}", cause=cause,
        duration_ms=0, metadata={"code": code, **_said(m), **more},
    )  # fmt: skip
    d.audit(f"billing.window.{code}", _ref(m), reason=m.reason, details={**_said(m), **more})
    return run


def _ref(m: PostWindow) -> str:
    return f"meter:{m.meter_id}/window:{m.window_start_us}"


def _said(m: PostWindow) -> dict[str, Any]:
    return {"amount_minor": m.amount_minor, "delivery_id": m.delivery_id}
