"""Which endpoint of the simulated Stripe is whose."""

from collections.abc import Callable
from typing import Final

from adapters.simulated.stripe_book import API_KEY, Handler, State, StripeBook
from adapters.simulated.stripe_checkout import create_session, list_sessions, retrieve_session
from adapters.simulated.stripe_credits import (
    create_customer,
    create_transaction,
    list_customers,
    list_transactions,
    retrieve_customer,
    retrieve_transaction,
)
from adapters.simulated.stripe_disputes import list_disputes, lose_dispute, retrieve_dispute, update_dispute
from adapters.simulated.stripe_errors import Thing
from adapters.simulated.stripe_lists import page
from adapters.simulated.stripe_params import Params
from adapters.simulated.stripe_payments import (
    cancel,
    capture,
    confirm,
    create_intent,
    list_intents,
    retrieve_charge,
    retrieve_intent,
)
from adapters.simulated.stripe_refunds import create_refund, list_refunds, retrieve_refund, update_refund


def retrieve_event(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/events/{}."""
    Params(given).done()
    return book.get("event", path[0])


def list_events(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/events, of one type or of all."""
    params = Params(given)
    name = params.text("type")
    found = (each for each in book.of("event").values() if name in ("", each["type"]))
    return page(found, params, "/v1/events")


ROUTES: Final[tuple[tuple[str, str, Handler], ...]] = (
    ("POST", "/v1/customers", create_customer),
    ("GET", "/v1/customers", list_customers),
    ("GET", "/v1/customers/{}", retrieve_customer),
    ("POST", "/v1/customers/{}/balance_transactions", create_transaction),
    ("GET", "/v1/customers/{}/balance_transactions", list_transactions),
    ("GET", "/v1/customers/{}/balance_transactions/{}", retrieve_transaction),
    ("POST", "/v1/payment_intents", create_intent),
    ("GET", "/v1/payment_intents", list_intents),
    ("GET", "/v1/payment_intents/{}", retrieve_intent),
    ("POST", "/v1/payment_intents/{}/confirm", confirm),
    ("POST", "/v1/payment_intents/{}/capture", capture),
    ("POST", "/v1/payment_intents/{}/cancel", cancel),
    ("GET", "/v1/charges/{}", retrieve_charge),
    ("POST", "/v1/checkout/sessions", create_session),
    ("GET", "/v1/checkout/sessions", list_sessions),
    ("GET", "/v1/checkout/sessions/{}", retrieve_session),
    ("POST", "/v1/refunds", create_refund),
    ("GET", "/v1/refunds", list_refunds),
    ("GET", "/v1/refunds/{}", retrieve_refund),
    ("POST", "/v1/refunds/{}", update_refund),
    ("GET", "/v1/disputes", list_disputes),
    ("GET", "/v1/disputes/{}", retrieve_dispute),
    ("POST", "/v1/disputes/{}", update_dispute),
    ("POST", "/v1/disputes/{}/close", lose_dispute),
    ("GET", "/v1/events", list_events),
    ("GET", "/v1/events/{}", retrieve_event),
)


def new_book(now_s: Callable[[], float], api_key: str = API_KEY, state: State | None = None) -> StripeBook:
    """A simulated Stripe with all its endpoints."""
    return StripeBook(now_s, ROUTES, api_key=api_key, state=state)
