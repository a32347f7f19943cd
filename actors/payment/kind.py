"""The payment actor: one payment object of Stripe's, whatever events speak of it, in any order, however often.

It is the only writer of its entries. What comes before the payment itself, or before its account, is deferred and
booked when that is there; a payment whose account does not appear within 72 hours has a case. So is what comes to one
that is refused, until an operator or another event of it names an account of its currency.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from actors.facts import facts
from actors.payment import r06_duplicate as r06
from actors.payment.booking import book
from actors.payment.messages import AccountAppeared, AssignPayment, StripeEvent
from actors.payment.state import Payment, Said
from actors.tables import StripeEventRow
from amends.domain.kinds import ActorKind, Legal
from amends.turn.cases import close_case, open_case
from amends.turn.decision import Decision
from amends.turn.messages import ResolveCase, TimerFired

DEFERRED, CURRENCY, DISPUTE = "deferred_payment", "payment_currency", "payment_dispute"
CONFLICT = "billing_conflict"
PATIENCE_US = 72 * 3_600_000_000
MOST_WAITING = 100
SETTLED = {DEFERRED: "noted", CURRENCY: "refused"}  # cases that a person settles, and the payment is nobody's here


def _event(s: Payment | None, m: StripeEvent, d: Decision) -> None:
    said = m.said
    if m.known:
        r06.cancel(d, said, "duplicate_event", state=m.known)
    elif said.what == "ignored" or (s is not None and s.state == "ignored"):
        _ignored(s, said, d)
    else:
        HANDLERS[said.what](s, said, d)
    d.reply_entity = False
    noted = [row.state for row in d.rows if isinstance(row, StripeEventRow) and row.event_id == said.event_id]
    d.reply(duplicate=bool(m.known) or noted == ["duplicate"])


def _ignored(s: Payment | None, said: Said, d: Decision) -> None:
    """It is about no payment, or about one that a person has settled in another way: it is stored, and that is all."""
    if s is None:
        d.create(Payment(state="ignored", since_us=said.received_us))
    _noted(d, said, "ignored")


def _paid(s: Payment | None, said: Said, d: Decision) -> None:
    """The payment itself: credited once, by whichever of its events comes first."""
    payer = facts(d).payer(said.account_id, said.customer)
    if s is not None and s.state == "credited":
        _again(d, said)
        _compare(s, said, d, payer)
    elif payer is None:
        _defer(s, said, d)
    elif payer[1] == said.currency:
        _credit(s, said, d, *payer)
    elif s is not None and s.state == "refused":
        _again(d, said)
    else:
        _refuse_currency(s, said, d, *payer)


def _credit(s: Payment | None, said: Said, d: Decision, account_id: str, currency: str) -> None:
    own: dict[str, Any] = {"account_id": account_id, "currency": currency, "amount_minor": said.amount_minor}
    _become(s, d, "credited", said, **own)
    book(d, "topup", f"topup:{d.id}", said)
    _noted(d, said, "applied")
    _settle_waiting(d, said)


def _compare(s: Payment, said: Said, d: Decision, payer: tuple[str, str] | None) -> None:
    """News of a payment that is booked must say the same of it; where it does not a person must look."""
    told = (payer[0] if payer is not None else s.account_id, said.amount_minor, said.currency)
    if told != (s.account_id, s.amount_minor, s.currency):
        open_case(d, CONFLICT, r06.event_ref(said), evidence={
            "payment": d.id, "type": said.type, "booked": {
                "account_id": s.account_id, "amount_minor": s.amount_minor, "currency": s.currency},
            "told": dict(zip(("account_id", "amount_minor", "currency"), told, strict=True)),
        })  # fmt: skip


def _refunded(s: Payment | None, said: Said, d: Decision) -> None:
    key = f"refund:{said.ref}"
    if not _bookable(s, said, d, key):
        return
    book(d, "refund", key, said)
    _noted(d, said, "applied")
    if said.ref in d.state.failed and f"refund_failed:{said.ref}" not in d.state.booked:  # it was told first
        book(d, "topup", f"refund_failed:{said.ref}", said)


def _refund_failed(s: Payment | None, said: Said, d: Decision) -> None:
    """Books what the refund had taken; of one that was never booked it is remembered, should that still come."""
    key = f"refund_failed:{said.ref}"
    if not _bookable(s, said, d, key):
        return
    taken = d.state.booked.get(f"refund:{said.ref}")
    if taken is not None:
        book(d, "topup", key, said, taken)
        _noted(d, said, "applied")
    elif said.ref in d.state.failed:
        _again(d, said)
    else:
        _room(d, len(d.state.failed))
        d.set(failed=(*d.state.failed, said.ref))
        _noted(d, said, "ignored")


def _moved(entry_type: str) -> Callable[[Payment | None, Said, Decision], None]:
    """What a dispute takes or gives back, by its balance transaction."""

    def handle(s: Payment | None, said: Said, d: Decision) -> None:
        key = f"{entry_type}:{said.ref}"
        if _bookable(s, said, d, key):
            book(d, entry_type, key, said)
            _noted(d, said, "applied")

    return handle


def _disputed(s: Payment | None, said: Said, d: Decision) -> None:
    """A dispute is opened: a person must answer it at Stripe. Nothing is booked until funds are withdrawn."""
    if s is None or s.state == "noted":
        _defer(s, said, d)
        return
    if said.ref in s.disputes:
        _again(d, said)
        return
    _room(d, len(s.disputes))
    d.set(disputes=(*s.disputes, said.ref))
    open_case(d, DISPUTE, r06.event_ref(said), evidence={
        "dispute": said.ref, "payment": d.id, "account_id": d.state.account_id, "amount_minor": said.amount_minor,
        "currency": said.currency, "reason": said.note,
    })  # fmt: skip
    _noted(d, said, "applied")


HANDLERS: Mapping[str, Callable[[Payment | None, Said, Decision], None]] = {
    "paid": _paid,
    "refunded": _refunded,
    "refund_failed": _refund_failed,
    "disputed": _disputed,
    "withdrawn": _moved("refund"),
    "reinstated": _moved("topup"),
}


# --- what they have in common ----------------------------------------------------------------------------


def _bookable(s: Payment | None, said: Said, d: Decision, key: str) -> bool:
    """Whether it can be applied now; if not it was deferred, was booked before, or is in another currency."""
    if s is None or s.state != "credited":
        _defer(s, said, d)
    elif key in s.booked:
        _again(d, said)
    elif said.currency != s.currency:
        _currency_case(d, said, s.account_id, s.currency)
        _noted(d, said, "ignored")
    else:
        return True
    return False


def _defer(s: Payment | None, said: Said, d: Decision) -> None:
    if s is None:
        due_us = d.now_us + PATIENCE_US
        d.create(Payment(state="noted", since_us=said.received_us, waiting=(said,), timers={"deferred": due_us}))
    else:
        _room(d, len(s.waiting))
        d.set(waiting=(*s.waiting, said))
    _noted(d, said, "deferred")


def _room(d: Decision, used: int) -> None:
    if used >= MOST_WAITING:
        d.refuse("throttled", f"{MOST_WAITING} events of the payment {d.id} wait already; send this one again later")


def _become(s: Payment | None, d: Decision, state: str, said: Said, **own: Any) -> None:
    if s is None:
        d.create(Payment(state=state, since_us=said.received_us, **own))
    else:
        d.cancel("deferred")
        close_case(d, DEFERRED, f"it is {state} now", _first(s))
        for key in [key for key in d.state.cases if key.startswith(f"{CURRENCY} ") and state == "credited"]:
            close_case(d, CURRENCY, f"it is {state} now", key.partition(" ")[2])
        d.to(state, **own)


def _settle_waiting(d: Decision, by: Said) -> None:
    """All that was deferred, in the order in which it came; other news of the payment itself is a duplicate now."""
    waiting: tuple[Said, ...] = d.state.waiting
    d.set(waiting=())
    for said in waiting:
        if said.event_id != by.event_id:
            HANDLERS[said.what](d.state, said, d)


def _again(d: Decision, said: Said) -> None:
    r06.cancel(d, said, "duplicate_payment", booked=len(d.state.booked))
    _noted(d, said, "duplicate")


def _refuse_currency(s: Payment | None, said: Said, d: Decision, account_id: str, currency: str) -> None:
    """Nothing is booked, and nothing lost: it waits with all that is said of it until its account is named."""
    others = [each for each in (s.waiting if s is not None else ()) if each.event_id != said.event_id]
    waiting = tuple(_unnamed(each, d) for each in (said, *others) if each.what != "disputed")
    own: dict[str, Any] = {"account_id": account_id, "currency": said.currency, "amount_minor": said.amount_minor}
    _become(s, d, "refused", said, waiting=waiting, **own)
    _currency_case(d, said, account_id, currency)
    _noted(d, said, "deferred")
    for each in others:
        if each.what == "disputed":  # the bank waits for nobody's currency
            _disputed(d.state, each, d)


def _unnamed(said: Said, d: Decision) -> Said:
    """Without the account that it names, where that is there: it cannot have it, and is no contradiction later."""
    there = facts(d).payer(said.account_id, said.customer) is not None
    return replace(said, account_id="", customer="") if there else said


def _currency_case(d: Decision, said: Said, account_id: str, currency: str) -> None:
    open_case(d, CURRENCY, r06.event_ref(said), evidence={
        "payment": d.id, "account_id": account_id, "account_currency": currency, "currency": said.currency,
        "amount_minor": said.amount_minor, "type": said.type,
    })  # fmt: skip


def _noted(d: Decision, said: Said, state: str) -> None:
    """The event's row, and the audit of what came of it."""
    account = d.state.account_id or said.account_id or None
    d.row(StripeEventRow(said.event_id, said.type, d.id, state, account, said.received_us))
    d.audit(f"payments.event.{state}", r06.event_ref(said), details={
        "type": said.type, "payment": d.id, "account_id": account, "amount_minor": said.amount_minor,
        "currency": said.currency,
    })  # fmt: skip


# --- deferred ----------------------------------------------------------------------------------------------


def _appeared(s: Payment, m: AccountAppeared, d: Decision) -> None:
    """The first of the waiting events whose account is there, and of its currency, credits the payment."""
    found = [(said, facts(d).payer(said.account_id, said.customer)) for said in s.waiting if said.what == "paid"]
    there = [(said, payer[1] == said.currency) for said, payer in found if payer is not None]
    said = next((said for said, fits in there if fits), None)
    if said is None and s.state == "noted" and there:
        said = there[0][0]
    if said is not None:
        _paid(s, said, d)


def _assign(s: Payment, m: AssignPayment, d: Decision) -> None:
    """An operator's word names the account; it is booked as if the event had named it."""
    paid = next((said for said in s.waiting if said.what == "paid"), None)
    if paid is None:
        d.refuse("illegal_transition", f"nothing was heard of the payment {d.id} itself yet", field="payment_id")
    payer = facts(d).payer(m.account_id, "")
    if payer is None:
        d.refuse("not_found", f"there is no account {m.account_id!r}", field="account_id")
    if payer[1] != paid.currency:
        text = f"the payment is in {paid.currency}, the account in {payer[1]}"
        d.refuse("invalid_request", text, field="account_id")
    d.audit("payment.assign", reason=m.reason, details={"account_id": m.account_id})
    _credit(s, paid, d, *payer)
    d.reply_entity = False
    d.reply(payment_id=d.id, account_id=m.account_id, state=d.state.state)


def _resolved(s: Payment, m: ResolveCase, d: Decision) -> None:
    """A person has settled a payment that was not booked in another way: it is nobody's here, and never booked."""
    if SETTLED.get(m.kind) == s.state:
        d.cancel("deferred")
        for said in s.waiting:
            _noted(d, said, "ignored")
        d.to("ignored", reason=m.reason, waiting=())


def _timer(s: Payment, m: TimerFired, d: Decision) -> None:
    """72 hours have gone by, and nobody knows whose it is, or what it refunds."""
    if s.state != "noted":
        return
    paid = next((each for each in s.waiting if each.what == "paid"), s.waiting[0])
    open_case(d, DEFERRED, _first(s), evidence={
        "payment": d.id, "since_us": s.since_us, "account_id": paid.account_id or None,
        "customer": paid.customer or None, "currency": paid.currency, "amount_minor": paid.amount_minor,
        "events": [{"event_id": each.event_id, "type": each.type, "account_id": each.account_id or None,
                    "customer": each.customer or None} for each in s.waiting],
    })  # fmt: skip


def _first(s: Payment) -> str:
    return r06.event_ref(s.waiting[0]) if s.waiting else ""


PAYMENT = ActorKind(
    name="payment",
    table="payments",
    columns={"account_id": str},
    state_type=Payment,
    states={"noted": "rest", "credited": "end", "refused": "rest", "ignored": "end"},
    transitions={
        ("", "noted"): "an event before its payment or its account",
        ("", "credited"): "paid, and the account is known",
        ("", "refused"): "paid in another currency than the account's",
        ("", "ignored"): "an event that is about no payment",
        ("noted", "credited"): "payment and account are known now",
        ("noted", "refused"): "paid in another currency than the account's",
        ("noted", "ignored"): "an operator has settled it in another way",
        ("refused", "credited"): "an operator or another event of it names an account of its currency",
        ("refused", "ignored"): "an operator has settled it in another way",
    },
    handlers={StripeEvent: _event, AccountAppeared: _appeared, AssignPayment: _assign, TimerFired: _timer},
    creates=frozenset({StripeEvent}),
    legal={AssignPayment: Legal(("noted", "refused"), "assigned")},
    resolved=_resolved,
    events=False,
)
