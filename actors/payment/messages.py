"""What reaches a payment: deliveries of Stripe's events, and word of an account that was waited for."""

from msgspec import Struct

from actors.payment.state import Said


class StripeEvent(Struct, frozen=True):
    """One verified delivery. `known`: what came of an earlier one of the same event, "" if there was none."""

    said: Said
    known: str = ""


class AccountAppeared(Struct, frozen=True):
    """An account that a deferred event may be for is there now."""
