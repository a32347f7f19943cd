"""Disputes at the simulated Stripe.

Follows "How disputes work" and "Testing": the amount is withdrawn with a balance transaction when a dispute opens (an
inquiry withdraws nothing), and comes back with another one when it is won. `winning_evidence` and `losing_evidence` as
uncategorised text decide it; closing it is losing it.
"""

from adapters.simulated.stripe_book import StripeBook
from adapters.simulated.stripe_errors import Thing, impossible
from adapters.simulated.stripe_lists import page
from adapters.simulated.stripe_params import Params

DISPUTE = "dispute"
FEE_MINOR = 1500
OPEN = ("needs_response", "warning_needs_response", "under_review")


def open_dispute(book: StripeBook, intent_id: str, amount: int, *, withdraw: bool) -> Thing:
    """A customer disputes a payment, or (`withdraw` false) their bank asks first. `amount` 0: all of it."""
    intent = book.get("payment_intent", intent_id, "payment_intent", 400)
    charge = book.get("charge", intent["latest_charge"] or "", "charge", 400)
    if not 0 <= amount <= charge["amount_captured"]:
        raise impossible("A dispute is of no more than what was captured.", "amount_too_large")
    dispute = book.add(
        DISPUTE, "du", amount=amount or charge["amount_captured"], currency=charge["currency"], charge=charge["id"],
        payment_intent=intent_id, reason="fraudulent", metadata={}, balance_transactions=[], evidence={},
        is_charge_refundable=not withdraw, status="needs_response" if withdraw else "warning_needs_response",
    )  # fmt: skip
    charge["disputed"] = True
    book.emit("charge.dispute.created", dispute)
    if withdraw:
        withdraw_funds(book, dispute["id"])
    return dispute


def withdraw_funds(book: StripeBook, dispute_id: str) -> Thing:
    """The disputed amount leaves the account."""
    dispute = _open(book, dispute_id)
    if dispute["balance_transactions"]:
        raise impossible("The funds of this dispute have been withdrawn.")
    dispute.update(status="needs_response", is_charge_refundable=False)
    _move(book, dispute, -dispute["amount"], FEE_MINOR)
    book.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def close_dispute(book: StripeBook, dispute_id: str, *, won: bool) -> Thing:
    """It is decided; what was withdrawn comes back if it is won."""
    dispute = _open(book, dispute_id)
    dispute["status"] = "won" if won else "lost"
    if won and dispute["balance_transactions"]:
        _move(book, dispute, dispute["amount"], -FEE_MINOR)
        book.emit("charge.dispute.funds_reinstated", dispute)
    book.emit("charge.dispute.closed", dispute)
    return dispute


def _open(book: StripeBook, dispute_id: str) -> Thing:
    dispute = book.get(DISPUTE, dispute_id)
    if dispute["status"] not in OPEN:
        raise impossible(f"This dispute is {dispute['status']}.")
    return dispute


def _move(book: StripeBook, dispute: Thing, amount: int, fee: int) -> None:
    made = {
        "id": book.new_id("txn"), "object": "balance_transaction", "amount": amount, "fee": fee, "net": amount - fee,
        "currency": dispute["currency"], "created": int(book.now_s()), "type": "adjustment", "source": dispute["id"],
        "reporting_category": "dispute" if amount < 0 else "dispute_reversal", "status": "available",
    }  # fmt: skip
    dispute["balance_transactions"].append(made)


def update_dispute(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """POST /v1/disputes/{}: evidence."""
    params = Params(given)
    evidence = Params(params.nested("evidence"))
    params.flag("submit")
    params.done()
    said = evidence.text("uncategorized_text")
    evidence.done()
    dispute = _open(book, path[0])
    dispute["evidence"] = {"uncategorized_text": said}
    if said in ("winning_evidence", "losing_evidence"):
        return close_dispute(book, path[0], won=said == "winning_evidence")
    book.emit("charge.dispute.updated", dispute)
    return dispute


def lose_dispute(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """POST /v1/disputes/{}/close."""
    Params(given).done()
    return close_dispute(book, path[0], won=False)


def retrieve_dispute(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/disputes/{}."""
    Params(given).done()
    return book.get(DISPUTE, path[0])


def list_disputes(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/disputes."""
    params = Params(given)
    intent = params.text("payment_intent")
    found = (each for each in book.of(DISPUTE).values() if intent in ("", each["payment_intent"]))
    return page(found, params, "/v1/disputes")
