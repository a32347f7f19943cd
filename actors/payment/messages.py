"""What reaches a payment: deliveries of Stripe's events, and word of an account that was waited for."""

from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct

from actors.fields import AccountId
from actors.payment.state import Said
from amends.domain.api import Asked, Command, Reason, Request

PaymentId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,255}$(?!\n)")]
_ASSIGNED: dict[str, Any] = {
    "payment_id": {"type": "string"}, "account_id": {"type": "string"}, "state": {"type": "string"},
}  # fmt: skip


class StripeEvent(Struct, frozen=True):
    """One verified delivery. `known`: what came of an earlier one of the same event, "" if there was none."""

    said: Said
    known: str = ""


class AssignPayment(Request, frozen=True):
    """ops.payment.assign: a payment that waits, or was refused for its currency, is this account's."""

    command: ClassVar[Command] = Command(
        subject="ops.payment.assign", help="say whose a payment is that waits, or was refused", role="operator",
        of="payment", by="payment_id", row="", answer=_ASSIGNED, example={"reason": "the customer wrote to us"},
        beside={"payment_id": "pi_1", "account_id": "acme", "state": "credited"},
    )  # fmt: skip
    payment_id: Annotated[PaymentId, Asked("the payment at Stripe", example="pi_1")]
    account_id: Annotated[AccountId, Asked("whose it is", "--account", example="acme")]
    reason: Reason


class AccountAppeared(Struct, frozen=True):
    """An account that a deferred event may be for is there now."""
