"""Payment intents and their charges at the simulated Stripe.

Follows "Payment Intents" and "Place a hold on a payment method": confirmed, an intent has succeeded with the whole
amount received, or with `capture_method = manual` waits for a capture; a capture of a part receives that part, and the
rest is released. Test payment methods are those of "Testing"; each succeeds, `pm_card_createDispute` is disputed.
"""

from adapters.simulated.stripe_book import StripeBook
from adapters.simulated.stripe_disputes import open_dispute
from adapters.simulated.stripe_errors import Thing, impossible
from adapters.simulated.stripe_lists import page
from adapters.simulated.stripe_params import Params

INTENT = "payment_intent"
NO_METHOD = "You cannot confirm this PaymentIntent because it's missing a payment method."


def create_intent(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """POST /v1/payment_intents."""
    params = Params(given)
    amount, currency, customer = params.integer("amount"), params.currency(), params.text("customer")
    manual = params.choice("capture_method", "automatic", "automatic_async", "manual") == "manual"
    metadata, description = params.metadata(), params.text("description") or None
    method, at_once = params.text("payment_method"), params.flag("confirm")
    for name in ("payment_method_types", "automatic_payment_methods"):
        params.nested(name)
    params.done()
    if customer:
        book.get("customer", customer, "customer", 400)
    if at_once and not method:
        raise impossible(NO_METHOD)
    intent = new_intent(book, amount, currency, customer, metadata, manual=manual)
    intent.update(description=description, payment_method=method or None)
    book.emit("payment_intent.created", intent)
    return _confirmed(book, intent) if at_once else intent


def new_intent(
    book: StripeBook, amount: int, currency: str, customer: str, metadata: dict[str, str], *, manual: bool = False
) -> Thing:
    """An intent that has not been confirmed."""
    if amount <= 0:
        raise impossible("Amount must be greater than zero.", "parameter_invalid_integer")
    intent = book.add(
        INTENT, "pi", amount=amount, amount_capturable=0, amount_received=0, currency=currency,
        customer=customer or None, metadata=metadata, capture_method="manual" if manual else "automatic",
        payment_method=None, payment_method_types=["card"], latest_charge=None, status="requires_payment_method",
        description=None, canceled_at=None,
    )  # fmt: skip
    intent["client_secret"] = f"{intent['id']}_secret_simulated"
    return intent


def confirm(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """POST /v1/payment_intents/{}/confirm."""
    params = Params(given)
    method = params.text("payment_method")
    params.done()
    intent = book.get(INTENT, path[0], "intent")
    if method:
        intent["payment_method"] = method
    return _confirmed(book, intent)


def _confirmed(book: StripeBook, intent: Thing) -> Thing:
    if intent["status"] not in ("requires_payment_method", "requires_confirmation"):
        words = f"This PaymentIntent could not be confirmed because it has a status of {intent['status']}."
        raise impossible(words, "payment_intent_unexpected_state")
    if not intent["payment_method"]:
        raise impossible(NO_METHOD)
    charge = new_charge(book, intent)
    if intent["capture_method"] == "manual":
        intent.update(status="requires_capture", amount_capturable=intent["amount"])
        book.emit("payment_intent.amount_capturable_updated", intent)
        return intent
    return succeed(book, intent, charge, intent["amount"])


def new_charge(book: StripeBook, intent: Thing) -> Thing:
    """The charge of an intent, authorised and not captured."""
    charge = book.add(
        "charge", "ch", amount=intent["amount"], amount_captured=0, amount_refunded=0, captured=False, paid=True,
        refunded=False, disputed=False, status="succeeded", currency=intent["currency"], customer=intent["customer"],
        metadata=dict(intent["metadata"]), payment_intent=intent["id"], payment_method=intent["payment_method"],
    )  # fmt: skip
    intent["latest_charge"] = charge["id"]
    return charge


def succeed(book: StripeBook, intent: Thing, charge: Thing, amount: int) -> Thing:
    """The intent has received `amount`."""
    charge.update(captured=True, amount_captured=amount)
    intent.update(status="succeeded", amount_received=amount, amount_capturable=0)
    book.emit("charge.succeeded", charge)
    book.emit("payment_intent.succeeded", intent)
    if intent["payment_method"] == "pm_card_createDispute":
        open_dispute(book, intent["id"], 0, withdraw=True)
    return intent


def capture(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """POST /v1/payment_intents/{}/capture."""
    params = Params(given)
    amount = params.integer("amount_to_capture", 0)
    params.done()
    intent = book.get(INTENT, path[0], "intent")
    if intent["status"] != "requires_capture":
        words = f"This PaymentIntent could not be captured because it has a status of {intent['status']}."
        raise impossible(words, "payment_intent_unexpected_state")
    if not 0 <= amount <= intent["amount_capturable"]:
        raise impossible("The amount to capture is more than what is capturable.", "amount_too_large")
    return succeed(book, intent, book.get("charge", intent["latest_charge"]), amount or intent["amount_capturable"])


def cancel(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """POST /v1/payment_intents/{}/cancel."""
    Params(given).done()
    intent = book.get(INTENT, path[0], "intent")
    if intent["status"] in ("succeeded", "canceled"):
        words = f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}."
        raise impossible(words, "payment_intent_unexpected_state")
    intent.update(status="canceled", canceled_at=int(book.now_s()), amount_capturable=0)
    book.emit("payment_intent.canceled", intent)
    return intent


def retrieve_intent(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/payment_intents/{}."""
    Params(given).done()
    return book.get(INTENT, path[0], "intent")


def list_intents(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/payment_intents."""
    params = Params(given)
    customer = params.text("customer")
    found = (each for each in book.of(INTENT).values() if customer in ("", each["customer"]))
    return page(found, params, "/v1/payment_intents")


def retrieve_charge(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/charges/{}."""
    Params(given).done()
    return book.get("charge", path[0])
