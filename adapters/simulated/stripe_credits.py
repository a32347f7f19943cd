"""Customers and their balance at the simulated Stripe.

Follows "Customers", "Customer Balance Transactions" and "Customer credit balance": a negative amount is a credit, a
transaction can never be changed, `ending_balance` is the balance after it, and the first currency becomes the
customer's. Another currency is refused, as where an account has not got multi-currency customers.
"""

from adapters.simulated.stripe_book import StripeBook
from adapters.simulated.stripe_errors import Thing, impossible
from adapters.simulated.stripe_lists import page
from adapters.simulated.stripe_params import Params

TRANSACTION = "customer_balance_transaction"


def create_customer(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """POST /v1/customers."""
    params = Params(given)
    said = {name: params.text(name) or None for name in ("name", "email", "description")}
    metadata = params.metadata()
    params.done()
    customer = book.add(
        "customer", "cus", balance=0, currency=None, invoice_credit_balance={}, metadata=metadata, **said
    )
    book.emit("customer.created", customer)
    return customer


def retrieve_customer(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/customers/{}."""
    Params(given).done()
    return book.get("customer", path[0])


def list_customers(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/customers."""
    return page(book.of("customer").values(), Params(given), "/v1/customers")


def create_transaction(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """POST /v1/customers/{}/balance_transactions."""
    params = Params(given)
    amount, currency = params.integer("amount"), params.currency()
    metadata, description = params.metadata(), params.text("description") or None
    params.done()
    customer = book.get("customer", path[0], "customer")
    if customer["currency"] not in (None, currency):
        raise impossible(f"The currency {currency} is not that of the customer, which is {customer['currency']}.")
    balance = customer["balance"] + amount
    made = book.add(
        TRANSACTION, "cbtxn", amount=amount, currency=currency, customer=customer["id"], ending_balance=balance,
        metadata=metadata, description=description, type="adjustment", invoice=None, credit_note=None,
        checkout_session=None,
    )  # fmt: skip
    customer.update(balance=balance, currency=currency, invoice_credit_balance={currency: balance})
    book.emit("customer_balance_transaction.created", made)
    return made


def retrieve_transaction(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/customers/{}/balance_transactions/{}."""
    Params(given).done()
    book.get("customer", path[0], "customer")
    made = book.get(TRANSACTION, path[1])
    return made if made["customer"] == path[0] else book.get(TRANSACTION, "")


def list_transactions(book: StripeBook, given: Thing, path: tuple[str, ...]) -> Thing:
    """GET /v1/customers/{}/balance_transactions."""
    book.get("customer", path[0], "customer")
    made = (each for each in book.of(TRANSACTION).values() if each["customer"] == path[0])
    return page(made, Params(given), f"/v1/customers/{path[0]}/balance_transactions")
