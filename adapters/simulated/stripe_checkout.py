"""Checkout sessions at the simulated Stripe.

Follows "Fulfil orders" of Checkout: a customer who pays at once completes the session as `paid`; with a delayed method
it is complete and `unpaid`, and paid or failed later, with an event of its own. The intent is made when the session is
completed; metadata of the session is not the intent's, which has its own (`payment_intent_data`).
"""

from adapters.simulated.stripe_book import StripeBook
from adapters.simulated.stripe_errors import Thing, impossible, invalid
from adapters.simulated.stripe_lists import page
from adapters.simulated.stripe_params import Params
from adapters.simulated.stripe_payments import new_charge, new_intent, succeed

SESSION = "checkout.session"


def create_session(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """POST /v1/checkout/sessions; prices are given with the items (`price_data`)."""
    params = Params(given)
    mode = params.choice("mode", "payment", "setup", "subscription")
    customer, reference = params.text("customer"), params.text("client_reference_id") or None
    metadata, items = params.metadata(), params.nested("line_items")
    about = Params(params.nested("payment_intent_data"))
    urls = {name: params.text(name) or None for name in ("success_url", "cancel_url")}
    params.done()
    intent_metadata = about.metadata()
    about.done()
    if customer:
        book.get("customer", customer, "customer", 400)
    total, currency = _total(items)
    if mode == "payment" and not currency:
        raise invalid("You must specify line_items in payment mode.", "line_items", "parameter_missing")
    amount = total if currency else None
    session = book.add(
        SESSION, "cs_test", mode=mode, customer=customer or None, client_reference_id=reference, metadata=metadata,
        amount_total=amount, amount_subtotal=amount, currency=currency or None,
        payment_intent=None, payment_status="unpaid" if currency else "no_payment_required", status="open", **urls,
    )  # fmt: skip
    session["expires_at"] = session["created"] + 24 * 3600
    book.of("checkout.metadata")[session["id"]] = {"metadata": intent_metadata}
    return session


def _total(items: Thing) -> tuple[int, str]:
    """The amount of all line items, and their currency; "" for no items."""
    total, currency = 0, ""
    for item in items.values():
        line = Params(item)
        price, quantity = Params(line.nested("price_data")), line.integer("quantity", 1)
        line.done()
        amount, this = price.integer("unit_amount"), price.currency()
        price.nested("product_data")
        price.done()
        if currency not in ("", this):
            raise invalid("All line items must have the same currency.", "line_items")
        total, currency = total + amount * quantity, this
    return total, currency


def complete(book: StripeBook, session_id: str, *, paid: bool) -> Thing:
    """The customer completes it: paid at once, or with a method that takes days."""
    session = _in_state(book, session_id, "open")
    session["status"] = "complete"
    if session["mode"] == "payment":
        metadata = book.of("checkout.metadata")[session_id]["metadata"]
        intent = new_intent(book, session["amount_total"], session["currency"], session["customer"] or "", metadata)
        intent.update(payment_method="pm_card_visa", status="processing")
        session["payment_intent"] = intent["id"]
        book.emit("payment_intent.created", intent)
        if paid:
            succeed(book, intent, new_charge(book, intent), intent["amount"])
    if paid and session["payment_status"] == "unpaid":
        session["payment_status"] = "paid"
    book.emit("checkout.session.completed", session)
    return session


def settle(book: StripeBook, session_id: str, *, paid: bool) -> Thing:
    """What became of a delayed payment."""
    session = _in_state(book, session_id, "complete")
    if session["payment_status"] != "unpaid" or not session["payment_intent"]:
        raise impossible("This session does not wait for a payment.")
    intent = book.get("payment_intent", session["payment_intent"])
    if paid:
        session["payment_status"] = "paid"
        succeed(book, intent, new_charge(book, intent), intent["amount"])
        book.emit("checkout.session.async_payment_succeeded", session)
    else:
        intent.update(status="requires_payment_method", payment_method=None)
        book.emit("payment_intent.payment_failed", intent)
        book.emit("checkout.session.async_payment_failed", session)
    return session


def _in_state(book: StripeBook, session_id: str, status: str) -> Thing:
    session = book.get(SESSION, session_id)
    if session["status"] != status:
        raise impossible(f"This session is {session['status']}, not {status}.")
    return session


def retrieve_session(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/checkout/sessions/{}."""
    Params(given).done()
    return book.get(SESSION, path[0], "session")


def list_sessions(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/checkout/sessions."""
    params = Params(given)
    intent = params.text("payment_intent")
    found = (each for each in book.of(SESSION).values() if intent in ("", each["payment_intent"]))
    return page(found, params, "/v1/checkout/sessions")
