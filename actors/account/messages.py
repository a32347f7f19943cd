"""What callers may ask of an account."""

from typing import Annotated, ClassVar

from msgspec import Meta

from actors.fields import AccountId, Currency
from amends.domain.api import Asked, Command, Request


class CreateAccount(Request, frozen=True):
    """cmd.account.create"""

    command: ClassVar[Command] = Command(
        subject="cmd.account.create", help="make an account", of="account", by="account_id", account="account_id"
    )
    account_id: Annotated[AccountId, Asked("its name", example="acme")]
    currency: Annotated[Currency, Asked("three letters, as in the policy", "--currency", example="usd")]
    stripe_customer_id: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]{1,255}$(?!\n)")] | None,
        Asked("its customer at Stripe", "--stripe-customer"),
    ] = None
