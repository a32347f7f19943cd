"""What callers may ask of an account."""

from typing import Annotated

from msgspec import Meta

from actors.fields import Currency, Name, Request


class CreateAccount(Request, frozen=True):
    """cmd.account.create"""

    account_id: Name
    currency: Currency
    stripe_customer_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]{1,255}$(?!\n)")] | None = None
