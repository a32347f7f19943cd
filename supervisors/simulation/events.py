"""Events of Stripe's as its webhook sends them, for stories: the fields that are read, and a few of the others."""

from typing import Any

Event = dict[str, Any]


def event(event_id: str, kind: str, body: dict[str, Any]) -> Event:
    """The envelope."""
    return {"id": event_id, "object": "event", "type": kind, "livemode": False, "data": {"object": body}}


def intent(event_id: str, payment: str, amount: int, *, account: str = "", customer: str = "", currency: str = "usd",
           received: int | None = None) -> Event:  # fmt: skip
    """`payment_intent.succeeded`; `received` where it is less than what was asked for."""
    return event(event_id, "payment_intent.succeeded", {
        "id": payment, "object": "payment_intent", "amount": amount, "currency": currency,
        "amount_received": amount if received is None else received, "customer": customer or None,
        "metadata": {"account_id": account} if account else {}, "status": "succeeded",
    })  # fmt: skip


def session(event_id: str, payment: str, amount: int, *, account: str = "", kind: str = "completed",
            status: str = "paid", mode: str = "payment", currency: str = "usd") -> Event:  # fmt: skip
    """`checkout.session.…`."""
    return event(event_id, f"checkout.session.{kind}", {
        "id": f"cs_{event_id}", "object": "checkout.session", "mode": mode, "payment_status": status,
        "payment_intent": payment, "amount_total": amount, "currency": currency, "customer": None,
        "metadata": {"account_id": account} if account else {},
    })  # fmt: skip


def refund(event_id: str, payment: str, refund_id: str, amount: int, *, kind: str = "created",
           status: str = "succeeded", currency: str = "usd") -> Event:  # fmt: skip
    """`refund.…`."""
    return event(event_id, f"refund.{kind}", {
        "id": refund_id, "object": "refund", "amount": amount, "currency": currency, "payment_intent": payment,
        "status": status,
    })  # fmt: skip


def dispute(event_id: str, payment: str, amount: int, kind: str, *, currency: str = "usd") -> Event:
    """`charge.dispute.…`: created, funds_withdrawn, funds_reinstated."""
    moved = [{"id": f"txn_out_{payment}", "amount": -amount, "currency": currency, "fee": 1500}]
    if kind == "funds_reinstated":
        moved.append({"id": f"txn_in_{payment}", "amount": amount, "currency": currency, "fee": -1500})
    return event(event_id, f"charge.dispute.{kind}", {
        "id": f"dp_{payment}", "object": "dispute", "amount": amount, "currency": currency, "payment_intent": payment,
        "reason": "fraudulent", "balance_transactions": [] if kind == "created" else moved,
    })  # fmt: skip
