"""What a test tells the simulated Stripe, under `/_sim/`: what goes wrong, what customers and banks do, what was seen.

Each command is a struct, whose fields are those of its JSON body, under the path of its name: `POST /_sim/fault` with
``{"kind": "cut", "times": 2}``. `GET /_sim/state`, `/_sim/requests` and `/_sim/deliveries` tell what happened.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from msgspec import Struct

from adapters.simulated import stripe_checkout as checkout
from adapters.simulated.stripe_book import StripeBook
from adapters.simulated.stripe_disputes import close_dispute, open_dispute, withdraw_funds
from adapters.simulated.stripe_errors import Thing, invalid
from adapters.simulated.stripe_faults import StripeFault
from adapters.simulated.stripe_refunds import settle_refund
from adapters.simulated.stripe_webhooks import Endpoint, Manner, Send, Webhooks


class Told(Protocol):
    """The simulator that is told."""

    book: StripeBook
    webhooks: Webhooks

    async def refuse(self) -> None:
        """No connection is taken until `accept`."""
        ...

    async def accept(self) -> None:
        """Connections are taken again."""
        ...


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """A command without fields."""


class Advance(Struct, frozen=True, forbid_unknown_fields=True):
    """Let time pass."""

    seconds: float


class Endpoints(Struct, frozen=True, forbid_unknown_fields=True):
    """Who gets webhooks from now on."""

    endpoints: list[Endpoint]


class Session(Struct, frozen=True, forbid_unknown_fields=True):
    """A customer completes a checkout session, or a delayed payment of one is settled."""

    session: str
    paid: bool = True


class Refund(Struct, frozen=True, forbid_unknown_fields=True):
    """A refund becomes `succeeded` or `failed`."""

    refund: str
    status: str


class Dispute(Struct, frozen=True, forbid_unknown_fields=True):
    """A customer disputes a payment; `withdraw` false: the bank only asks. `amount` 0: all of it."""

    payment_intent: str
    amount: int = 0
    withdraw: bool = True


class Withdraw(Struct, frozen=True, forbid_unknown_fields=True):
    """The funds of a dispute are withdrawn now."""

    dispute: str


class Decide(Struct, frozen=True, forbid_unknown_fields=True):
    """A dispute is decided."""

    dispute: str
    won: bool


async def _fault(told: Told, fault: StripeFault) -> None:
    if fault.kind == "refuse":
        raise invalid("a server that takes no connections counts none: POST /_sim/refuse and /_sim/accept", "kind")
    told.book.faults.add(fault)


async def _mend(told: Told, asked: Nothing) -> None:
    told.book.faults.mend()


async def _refuse(told: Told, asked: Nothing) -> None:
    await told.refuse()


async def _accept(told: Told, asked: Nothing) -> None:
    await told.accept()


async def _advance(told: Told, asked: Advance) -> None:
    told.book.advance(asked.seconds)


async def _endpoints(told: Told, asked: Endpoints) -> None:
    told.webhooks.endpoints = list(asked.endpoints)


async def _manner(told: Told, manner: Manner) -> None:
    told.webhooks.behave(manner)


async def _send(told: Told, how: Send) -> list[int]:
    return await told.webhooks.send(told.book.get("event", how.event), how)


async def _complete(told: Told, asked: Session) -> Thing:
    return checkout.complete(told.book, asked.session, paid=asked.paid)


async def _settle(told: Told, asked: Session) -> Thing:
    return checkout.settle(told.book, asked.session, paid=asked.paid)


async def _refund(told: Told, asked: Refund) -> Thing:
    return settle_refund(told.book, asked.refund, asked.status)


async def _dispute(told: Told, asked: Dispute) -> Thing:
    return open_dispute(told.book, asked.payment_intent, asked.amount, withdraw=asked.withdraw)


async def _withdraw(told: Told, asked: Withdraw) -> Thing:
    return withdraw_funds(told.book, asked.dispute)


async def _decide(told: Told, asked: Decide) -> Thing:
    return close_dispute(told.book, asked.dispute, won=asked.won)


# name → (the shape of its body, what it does)
COMMANDS: Final[dict[str, tuple[type[Struct], Callable[[Told, Any], Awaitable[Any]]]]] = {
    "fault": (StripeFault, _fault),
    "mend": (Nothing, _mend),
    "refuse": (Nothing, _refuse),
    "accept": (Nothing, _accept),
    "advance": (Advance, _advance),
    "endpoints": (Endpoints, _endpoints),
    "manner": (Manner, _manner),
    "send": (Send, _send),
    "checkout-complete": (Session, _complete),
    "checkout-settle": (Session, _settle),
    "refund-settle": (Refund, _refund),
    "dispute": (Dispute, _dispute),
    "dispute-withdraw": (Withdraw, _withdraw),
    "dispute-close": (Decide, _decide),
}
QUESTIONS: Final[dict[str, Callable[[Told], Any]]] = {
    "state": lambda told: told.book.state(),
    "requests": lambda told: list(told.book.seen),
    "deliveries": lambda told: {
        "deliveries": list(told.webhooks.deliveries),
        "under_way": told.webhooks.under_way,
        "dropped": told.webhooks.dropped,
    },
}
