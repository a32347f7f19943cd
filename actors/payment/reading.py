"""What an event of Stripe's says, from its JSON: pure, and strict where money hangs on it.

Shapes are those of Stripe's API: an event has `id`, `type` and `data.object`; references are ids, or objects that have
been expanded. Of what no row of the matrix names nothing but id and type is read.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from actors.payment.state import Said, What
from amends.values.errors import Rejected
from amends.values.text import printable

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,255}$(?!\n)")]
Text = Annotated[str, Meta(max_length=255)]
Amount = Annotated[int, Meta(ge=0, le=2**53)]
Currency = Annotated[str, Meta(pattern=r"^[a-zA-Z]{3}$(?!\n)")]
Type = Annotated[str, Meta(pattern=r"^[a-z0-9_.]{1,128}$(?!\n)")]


class _Data(Struct):
    object: Raw


class _Event(Struct):
    id: Id
    type: Type
    data: _Data


class _Expanded(Struct):
    id: Id


Ref = Id | _Expanded | None


class _Payer(Struct, kw_only=True):
    customer: Ref = None
    metadata: Mapping[str, Any] | None = None


class _Intent(_Payer, kw_only=True):
    id: Id
    amount_received: Amount
    currency: Currency


class _Session(_Payer, kw_only=True):
    id: Id
    mode: str
    payment_status: str
    payment_intent: Ref = None
    currency: Currency | None = None
    amount_total: Amount | None = None


class _Refund(Struct, kw_only=True):
    id: Id
    amount: Amount
    currency: Currency
    status: str | None = None
    payment_intent: Ref = None


class _Transaction(Struct, kw_only=True):
    id: Id
    amount: int | None = None
    currency: Currency | None = None


class _Dispute(Struct, kw_only=True):
    id: Id
    amount: Amount
    currency: Currency
    payment_intent: Ref = None
    reason: Text | None = None
    balance_transaction: Ref = None  # of older versions of the API
    balance_transactions: list[_Transaction | Id] = []


def read_event(body: bytes, received_us: int) -> Said:
    """What it says. Raises `Rejected` (invalid_request) naming the field for a body that is no event."""
    event: _Event = _decoded(body, _Event, "$")
    read = READERS.get(event.type)
    found = read(event.data.object) if read is not None else None
    found = found or {"what": "ignored", "payment_id": event.id}
    return Said(event_id=event.id, type=event.type, received_us=received_us, **found)


def _decoded(body: bytes | Raw, of: Any, path: str) -> Any:
    try:
        return msgspec.json.decode(body, type=of)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        text = str(error).replace("`$", f"`{path}")
        raise Rejected("invalid_request", f"the body is no event of Stripe's: {text}") from None


def _id(ref: str | _Expanded | None) -> str:
    return ref.id if isinstance(ref, _Expanded) else ref or ""


def _paid(payer: _Payer, payment_id: str, amount: int, currency: str) -> dict[str, Any]:
    account = (payer.metadata or {}).get("account_id")
    return {
        "what": "paid", "payment_id": payment_id, "amount_minor": amount, "currency": currency.lower(),
        "account_id": _plain(account) if isinstance(account, str) else "", "customer": _id(payer.customer),
    }  # fmt: skip


def _plain(text: str) -> str:
    """As it may stand in a row: printable, and not without end."""
    return printable(text, 255)


def _intent(body: Raw) -> dict[str, Any] | None:
    intent: _Intent = _decoded(body, _Intent, "$.data.object")
    return _paid(intent, intent.id, intent.amount_received, intent.currency) if intent.amount_received else None


def _session(body: Raw) -> dict[str, Any] | None:
    """Of checkout sessions only `mode = payment` counts, and only what is paid."""
    session: _Session = _decoded(body, _Session, "$.data.object")
    payment = _id(session.payment_intent)
    if session.mode != "payment" or session.payment_status != "paid" or not payment:
        return None
    for field in ("currency", "amount_total"):
        if getattr(session, field) is None:
            raise Rejected("invalid_request", f"the body is no event of Stripe's: `$.data.object.{field}` is missing")
    if not session.amount_total or session.currency is None:
        return None
    return _paid(session, payment, session.amount_total, session.currency)


def _refund(what: What, *statuses: str) -> Callable[[Raw], dict[str, Any] | None]:
    def read(body: Raw) -> dict[str, Any] | None:
        refund: _Refund = _decoded(body, _Refund, "$.data.object")
        payment = _id(refund.payment_intent)
        if not payment or not refund.amount or (statuses and refund.status not in statuses):
            return None
        return {
            "what": what, "payment_id": payment, "amount_minor": refund.amount, "currency": refund.currency.lower(),
            "ref": refund.id,
        }  # fmt: skip

    return read


def _dispute(what: What, sign: int) -> Callable[[Raw], dict[str, Any] | None]:
    """`sign`: of the balance transaction that the event is about; 0 where the dispute alone is meant."""

    def read(body: Raw) -> dict[str, Any] | None:
        dispute: _Dispute = _decoded(body, _Dispute, "$.data.object")
        payment = _id(dispute.payment_intent)
        if not payment:
            return None
        said = {
            "what": what, "payment_id": payment, "amount_minor": dispute.amount, "currency": dispute.currency.lower(),
            "ref": dispute.id, "note": _plain(dispute.reason or ""),
        }  # fmt: skip
        return said | (_moved(dispute, sign) if sign else {})

    return read


def _moved(dispute: _Dispute, sign: int) -> dict[str, Any]:
    """The newest balance transaction of that sign; its own amount where it is in the payment's currency.

    Where they are ids and nothing else their order alone says which: first the funds go, and then they come back.
    """
    told = [each if isinstance(each, _Transaction) else _Transaction(id=each) for each in dispute.balance_transactions]
    fitting = [each for each in told if each.amount is not None and each.amount * sign > 0]
    if not fitting:
        bare = [each.id for each in told if each.amount is None]
        first = _id(dispute.balance_transaction) or (bare[0 if sign < 0 else -1] if bare else "")
        if not first or len(bare) < len(told):
            raise Rejected("invalid_request", "`$.data.object.balance_transactions` names no transaction to book")
        return {"ref": first}
    moved = fitting[-1]
    own = (moved.currency or "").lower() == dispute.currency.lower()
    return {"ref": moved.id} | ({"amount_minor": abs(moved.amount or 0)} if own else {})


READERS: Mapping[str, Callable[[Raw], dict[str, Any] | None]] = {
    "payment_intent.succeeded": _intent,
    "checkout.session.completed": _session,
    "checkout.session.async_payment_succeeded": _session,
    "refund.created": _refund("refunded", "succeeded"),
    "refund.updated": _refund("refunded", "succeeded"),
    "refund.failed": _refund("refund_failed"),
    "charge.dispute.created": _dispute("disputed", 0),
    "charge.dispute.funds_withdrawn": _dispute("withdrawn", -1),
    "charge.dispute.funds_reinstated": _dispute("reinstated", 1),
}
