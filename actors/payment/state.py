"""The state of a payment, and what an event of Stripe's says of one."""

from typing import Literal

from msgspec import Struct

from amends.domain.kinds import ActorState

What = Literal["paid", "refunded", "refund_failed", "disputed", "withdrawn", "reinstated", "ignored"]


class Said(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One event as it is booked. `amount_minor` in the unit that Stripe counts the currency in.

    `ref`: the refund, or the balance transaction of a dispute, that an entry is keyed by; of an opened dispute itself.
    `account_id` is what the payment's own metadata name, `customer` the one at Stripe.
    """

    event_id: str
    type: str
    payment_id: str
    what: What
    received_us: int
    amount_minor: int = 0
    currency: str = ""
    ref: str = ""
    account_id: str = ""
    customer: str = ""
    note: str = ""  # of a dispute: why


class Payment(ActorState, frozen=True, kw_only=True):
    """One payment object (`pi_…`); an event that is about no payment is one of its own, and `ignored`.

    `waiting`: events that are deferred, in the order in which they came; of a refused one the refused event first.
    `booked`: the ledger keys that stand for it, and their amounts. `failed`: refunds that failed before they were
    booked; `disputes`: those that have a case, or had one.
    """

    account_id: str = ""
    currency: str = ""
    amount_minor: int = 0  # as Stripe counts it
    since_us: int = 0
    waiting: tuple[Said, ...] = ()
    booked: dict[str, int] = {}
    failed: tuple[str, ...] = ()
    disputes: tuple[str, ...] = ()
