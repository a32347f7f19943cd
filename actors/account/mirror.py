"""Credits of the ledger, mirrored to Stripe: intended in the turn that hears of them, tried until done or given up.

The ledger is the truth; what fails here changes nothing of it. What is Stripe's own trouble (it does not answer, it
errs, it asks for patience, it does not know our key) spends no try. The state counts credits and lists none: each has a
row, and its step.
"""

from typing import Any

from msgspec.structs import asdict, replace

from actors.account.messages import ResendCredits
from actors.account.state import Account
from actors.facts import facts
from actors.money.currencies import stripe_units
from actors.steps import MirrorCredit
from actors.tables import MirrorRow
from amends.turn.cases import close_case, open_case
from amends.turn.decision import Decision
from amends.turn.messages import ResolveCase, StepDone
from amends.turn.recovery import begin_run, failed_step, find_run

STEP, CASE, RUN = "stripe.credit", "stripe_mirror_failed", "mirror"
AWAY = ("stripe_unreachable", "stripe_rate_limited", "stripe_error", "stripe_timeout", "stripe_unauthorized")
SHARED = (*AWAY, "stripe_in_flight")  # everybody's trouble, or over by itself
FINAL = ("stripe_refused", "stripe_idempotency")  # another try cannot mend it
STORED = "stripe_stored_error"
AT_ONCE = 400  # credits that one command sends
GRACE_US = 60_000_000  # a credit that nobody has sent since then was not only posted a moment ago


def intend(s: Account, entries: list[dict[str, Any]], d: Decision) -> None:
    """The policy and overrun credits among these entries are to be mirrored."""
    if not facts(d).mirrors or not s.stripe_customer_id:
        return
    for entry in entries:
        if entry["entry_type"] == "credit" and entry["meter_id"] and entry["amount_minor"]:
            units = stripe_units(entry["amount_minor"], entry["currency"])
            key = entry["idempotency_key"]
            credit = MirrorCredit(s.stripe_customer_id, units, entry["currency"], key, d.now_us)
            _row(d, credit, "owed")
            _send(d, credit, 1)


def step_done(s: Account, m: StepDone, d: Decision) -> None:
    """A try has ended."""
    credit = MirrorCredit(**m.args)
    if m.ok:
        _there(s, credit, m, d)
    elif m.outcome.code in SHARED:
        again = replace(credit, look_up=credit.look_up or m.outcome.may_have_run)
        _send(d, again, m.attempt + 1, after_us=d.limits.delay_us("notification_backoff_ms", m.attempt, d.id))
    else:
        _failed(s, m, d, credit)


def _there(s: Account, credit: MirrorCredit, m: StepDone, d: Decision) -> None:
    """Stripe has it. A run ends when nothing fails any more, a case when nothing is given up."""
    transaction = str(m.outcome.data.get("transaction", ""))
    _row(d, credit, "done", transaction)
    d.audit("billing.credit.mirrored", _ref(d, credit), details={
        "transaction": transaction, "customer": credit.customer, "amount_minor": credit.amount_minor,
        "tries": credit.spent + 1})  # fmt: skip
    d.set(failing=s.failing - bool(credit.spent), resent=s.resent - credit.resent, given_up=s.given_up - credit.resent)
    run = find_run(d, RUN)
    if run is not None and (credit.spent or credit.resent):
        run.retry(STEP, _ref(d, credit), True, attempt=credit.spent + 1, duration_ms=m.duration_ms)
    _settled(d)


def _settled(d: Decision) -> None:
    own: Account = d.state
    if own.failing or own.resent:
        return
    run = find_run(d, RUN)
    if not own.given_up:
        close_case(d, CASE, "the credits are at Stripe")
        if run is not None:
            run.end("recovered")
    elif run is not None:  # an operator's, which has not come to an end with all of them
        run.exhausted(d.ref, {"given_up": own.given_up})


def _failed(s: Account, m: StepDone, d: Decision, credit: MirrorCredit) -> None:
    code, spent = m.outcome.code, credit.spent + 1
    run = failed_step(d, m, find_run(d, RUN), key=RUN)
    run.retry(STEP, _ref(d, credit), False, attempt=spent, duration_ms=m.duration_ms, code=code)
    if code not in FINAL and spent < run.tries("notification_tries"):
        d.set(failing=s.failing + (not credit.spent))
        again = replace(credit, spent=spent)
        if code == STORED:  # under the same key the same answer would come again
            again = replace(again, look_up=True, generation=credit.generation + 1)
        _send(d, again, m.attempt + 1, after_us=run.wait_us("notification_backoff_ms", spent))
        return
    _row(d, credit, "failed")
    d.set(
        failing=s.failing - bool(credit.spent), resent=s.resent - credit.resent,
        given_up=s.given_up + (not credit.resent),
    )  # fmt: skip
    run.exhausted(d.ref, {
        "ledger_key": credit.ledger_key, "customer": credit.customer, "amount_minor": credit.amount_minor,
        "currency": credit.currency, "code": code, "message": m.outcome.message[:500], "tries": spent,
    })  # fmt: skip


# --- operators -----------------------------------------------------------------------------------------------


def resend(s: Account, m: ResendCredits, d: Decision) -> None:
    """`ops.account.retry_mirror`: what was given up, or was never sent, goes out again, looked up first."""
    if s.resent:
        d.refuse("illegal_transition", f"{s.resent} credits of this account are being sent again already")
    if not facts(d).mirrors:
        d.refuse("illegal_transition", "nothing is mirrored here: [stripe].mirror_credits is off")
    if not m.credits:
        d.refuse("illegal_transition", "every credit of this account is at Stripe, or on its way")
    trigger = f"case:{s.cases[CASE]}" if CASE in s.cases else d.ref
    run = begin_run(d, d.context.matrix.row_of(STEP).id, key=RUN, trigger_type="policy", trigger_ref=trigger)
    if CASE in s.cases:
        run.case(CASE, state="retrying", reason=m.reason)
    d.audit("account.mirror_retry", reason=m.reason, details={"credits": min(len(m.credits), AT_ONCE)})
    never, chosen = 0, m.credits[:AT_ONCE]
    for known in chosen:
        sent = known["state"] is not None  # and answered: under the same key the same answer would come again
        never += not sent
        units = known["amount_minor"] if sent else stripe_units(known["amount_minor"], known["currency"])
        credit = MirrorCredit(
            known["customer"] or s.stripe_customer_id or "", units, known["currency"], known["ledger_key"],
            known["first_us"] or d.now_us, known["generation"] or 0,
        )  # fmt: skip
        _row(d, credit, "owed")
        _send(d, replace(credit, look_up=True, resent=True, generation=credit.generation + sent), 1)
    d.set(resent=len(chosen), given_up=s.given_up + never)


def resolved(s: Account, m: ResolveCase, d: Decision) -> None:
    """A person has settled what was given up in another way: it is never sent again."""
    if m.kind != CASE:
        return
    settled = [known for known in m.found or () if known["state"] == "failed"]
    for known in settled:
        d.row(MirrorRow(
            known["ledger_key"], d.id, known["customer"], known["amount_minor"], known["currency"], "settled",
            known["first_us"], known["generation"], "",
        ))  # fmt: skip
    left = max(0, s.given_up - s.resent - len(settled))
    d.set(given_up=s.resent + left)
    if left:  # more than one turn settles
        open_case(d, CASE, evidence={"given_up": left})


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
