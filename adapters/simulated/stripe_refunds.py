"""Refunds at the simulated Stripe.

Follows "Refunds" and "Testing": a refund has succeeded at once, waits as `pending` for a payment by
`pm_card_pendingRefund`, and may fail after it had succeeded. Each change has its event; `charge.refunded` has the
charge, which lists no refunds any more.
"""

from adapters.simulated.stripe_book import StripeBook
from adapters.simulated.stripe_errors import Thing, impossible, invalid
from adapters.simulated.stripe_lists import page
from adapters.simulated.stripe_params import Params

REFUND = "refund"
NEXT = {"pending": ("succeeded", "failed"), "succeeded": ("failed",)}


def create_refund(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """POST /v1/refunds, of a payment intent or of its charge; without an amount of all that is left."""
    params = Params(given)
    intent_id, charge_id, amount = params.text("payment_intent"), params.text("charge"), params.integer("amount", 0)
    metadata, reason = params.metadata(), params.text("reason") or None
    params.done()
    if bool(intent_id) == bool(charge_id):
        raise invalid("One of the following params should be provided for this request: payment_intent or charge.")
    if intent_id:
        charge_id = book.get("payment_intent", intent_id, "payment_intent", 400)["latest_charge"] or ""
    charge = book.get("charge", charge_id, "charge", 400)
    left = charge["amount_captured"] - charge["amount_refunded"]
    if not 0 <= amount <= left or left == 0:
        code = "charge_already_refunded" if left == 0 else "amount_too_large"
        raise impossible(f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left}).", code)
    waits = charge["payment_method"] == "pm_card_pendingRefund"
    refund = book.add(
        REFUND, "re", amount=amount or left, currency=charge["currency"], charge=charge["id"], reason=reason,
        payment_intent=charge["payment_intent"], metadata=metadata, status="pending" if waits else "succeeded",
        failure_reason=None, failure_balance_transaction=None, balance_transaction=book.new_id("txn"),
    )  # fmt: skip
    _count(charge, refund["amount"])
    book.emit("refund.created", refund)
    book.emit("charge.refunded", charge)
    return refund


def settle_refund(book: StripeBook, refund_id: str, status: str) -> Thing:
    """What became of it: a pending one succeeds or fails, one that had succeeded fails."""
    refund = book.get(REFUND, refund_id)
    before = refund["status"]
    if status not in NEXT.get(before, ()):
        raise impossible(f"A refund that is {before} does not become {status}.")
    refund["status"] = status
    if status == "failed":
        refund.update(failure_reason="expired_or_canceled_card", failure_balance_transaction=book.new_id("txn"))
        _count(book.get("charge", refund["charge"]), -refund["amount"])
    book.emit("refund.updated", refund, {"status": before})
    if status == "failed":
        book.emit("refund.failed", refund)
    return refund


def _count(charge: Thing, amount: int) -> None:
    total = charge["amount_refunded"] + amount
    charge.update(amount_refunded=total, refunded=total == charge["amount_captured"])


def update_refund(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """POST /v1/refunds/{}: metadata alone can be changed."""
    params = Params(given)
    metadata = params.metadata()
    params.done()
    refund = book.get(REFUND, path[0], "refund")
    before = {"metadata": dict(refund["metadata"])}
    refund["metadata"].update(metadata)
    book.emit("refund.updated", refund, before)
    return refund


def retrieve_refund(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/refunds/{}."""
    Params(given).done()
    return book.get(REFUND, path[0], "refund")


def list_refunds(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/refunds."""
    params = Params(given)
    intent, charge = params.text("payment_intent"), params.text("charge")
    found = (
        each
        for each in book.of(REFUND).values()
        if intent in ("", each["payment_intent"]) and charge in ("", each["charge"])
    )
    return page(found, params, "/v1/refunds")
