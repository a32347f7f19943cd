"""What callers may ask of an account."""

from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct

from actors.fields import AccountId, Currency
from amends.domain.api import Asked, Command, Reason, Request


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


class ResendCredits(Struct, frozen=True):
    """Send these to Stripe, which were given up (`state` failed) or never sent (None): rows of `given_up`."""

    credits: list[dict[str, Any]]
    reason: str


class RetryMirror(Request, frozen=True):
    """ops.account.retry_mirror; the account gets `ResendCredits`."""

    command: ClassVar[Command] = Command(
        subject="ops.account.retry_mirror", help="send credits to Stripe again that were given up", role="operator",
        of="account", found="mirror", words="retry mirror", example={"reason": "the customer is there again"},
    )  # fmt: skip
    account_id: Annotated[AccountId, Asked("the account", example="acme")]
    reason: Reason
