"""Credits of the ledger, mirrored to Stripe: intended in the turn that hears of them, tried until done or given up.

The ledger is the truth; what fails here changes nothing of it. What is Stripe's own trouble (it cannot be reached, it
asks for patience) spends no try. State holds no list of credits: each has a row, and its step.
"""

from typing import Any

from msgspec.structs import asdict, replace

from actors.account.messages import ResendCredits
from actors.account.state import Account
from actors.facts import facts
from actors.steps import MirrorCredit
from actors.tables import MirrorRow
from amends.turn.cases import close_case
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.recovery import begin_run, failed_step, find_run

STEP, CASE, RUN = "stripe.credit", "stripe_mirror_failed", "mirror"
SHARED = ("stripe_unreachable", "stripe_rate_limited")  # everybody's trouble
FINAL = ("stripe_refused", "stripe_idempotency")  # another try cannot mend it
STORED = "stripe_stored_error"


def intend(s: Account, entries: list[dict[str, Any]], d: Decision) -> None:
    """The policy and overrun credits among these entries are to be mirrored."""
    if not facts(d).mirrors or not s.stripe_customer_id:
        return
    for entry in entries:
        if entry["entry_type"] == "credit" and entry["meter_id"] and entry["amount_minor"]:
            credit = MirrorCredit(
                s.stripe_customer_id, entry["amount_minor"], entry["currency"], entry["idempotency_key"], d.now_us
            )
            _row(d, credit, "owed")
            _send(d, credit, 1)


def step_done(s: Account, m: StepDone, d: Decision) -> None:
    """A try has ended."""
    credit = MirrorCredit(**m.args)
    if m.ok:
        _row(d, credit, "done", str(m.outcome.data.get("transaction", "")))
        d.audit("billing.credit.mirrored", _ref(d, credit), details={
            "transaction": m.outcome.data.get("transaction"), "customer": credit.customer,
            "amount_minor": credit.amount_minor, "tries": credit.spent + 1})  # fmt: skip
        _there(d, credit, m)
        return
    code = m.outcome.code
    if code in SHARED:
        again = replace(credit, look_up=credit.look_up or m.outcome.may_have_run)
        _send(d, again, m.attempt + 1, after_us=d.limits.delay_us("notification_backoff_ms", m.attempt, d.id))
        return
    _failed(s, m, d, credit, code)


def _there(d: Decision, credit: MirrorCredit, m: StepDone) -> None:
    """What failed before has succeeded; a case that was retried ends with the last of its credits."""
    run = find_run(d, RUN)
    if run is not None:
        run.retry(STEP, _ref(d, credit), True, attempt=credit.spent + 1, duration_ms=m.duration_ms)
    if credit.resent:
        d.set(resent=d.state.resent - 1)
    if d.state.resent:
        return
    if credit.resent:
        close_case(d, CASE, "the credits are at Stripe")
    if run is not None:
        run.end("recovered")


def resend(s: Account, m: ResendCredits, d: Decision) -> None:
    """`ops.account.retry_mirror`: what was given up is sent again, looked up first."""
    if CASE not in s.cases:
        d.refuse("illegal_transition", "no credit of this account was given up")
    if s.resent:
        d.refuse("illegal_transition", f"{s.resent} credits of this account are being sent again already")
    row, trigger = d.context.matrix.row_of(STEP).id, f"case:{s.cases[CASE]}"
    run = begin_run(d, row, key=RUN, trigger_type="policy", trigger_ref=trigger)
    run.case(CASE, state="retrying", reason=m.reason)
    d.audit("account.mirror_retry", reason=m.reason, details={"credits": len(m.credits)})
    for known in m.credits:
        credit = MirrorCredit(**known)
        _row(d, credit, "owed")
        _send(d, replace(credit, look_up=True, resent=True, generation=credit.generation + 1), 1)
    d.set(resent=len(m.credits))
    if not m.credits:
        close_case(d, CASE, m.reason)
        run.end("recovered")


def _failed(s: Account, m: StepDone, d: Decision, credit: MirrorCredit, code: str) -> None:
    spent = credit.spent + 1
    run = failed_step(d, m, find_run(d, RUN), key=RUN)
    run.retry(STEP, _ref(d, credit), False, attempt=spent, duration_ms=m.duration_ms, code=code)
    if code not in FINAL and spent < run.tries("notification_tries"):
        again = replace(credit, spent=spent)
        if code == STORED:  # under the same key the same answer would come again
            again = replace(again, look_up=True, generation=credit.generation + 1)
        _send(d, again, m.attempt + 1, after_us=run.wait_us("notification_backoff_ms", spent))
        return
    _row(d, credit, "failed")
    if credit.resent:
        d.set(resent=s.resent - 1)
    run.exhausted(d.ref, {
        "ledger_key": credit.ledger_key, "customer": credit.customer, "amount_minor": credit.amount_minor,
        "currency": credit.currency, "code": code, "message": m.outcome.message[:500], "tries": spent,
    })  # fmt: skip


def _send(d: Decision, credit: MirrorCredit, attempt: int, *, after_us: int = 0) -> None:
    d.step(STEP, f"customer:{credit.customer}", asdict(credit), attempt=attempt, after_us=after_us,
           key=credit.ledger_key)  # fmt: skip


def _row(d: Decision, credit: MirrorCredit, state: str, transaction: str = "") -> None:
    d.row(MirrorRow(
        credit.ledger_key, d.id, credit.customer, credit.amount_minor, credit.currency, state, credit.first_us,
        credit.generation, transaction,
    ))  # fmt: skip


def _ref(d: Decision, credit: MirrorCredit) -> str:
    return f"ledger:{d.id}/{credit.ledger_key}"
