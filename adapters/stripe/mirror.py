"""Credits of the ledger on their way to Stripe: the step `stripe.credit`, at most one transaction for a ledger key.

What keeps it at one: the ledger key is the idempotency key, and stands in the transaction's metadata. Stripe forgets a
key after 24 hours, so from `FORGOTTEN_US` after the first try on it is looked up before it is sent; and whenever the
caller says so, as after a stored error, which the same key would only bring back (`generation`).
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from adapters.stripe.api import MAX_PAGES, StripeApi, TooManyTransactions, Transaction
from adapters.stripe.outcomes import outcome_of
from amends.ports.steps import Outcome, StepCall

FORGOTTEN_US: Final = 23 * 3_600_000_000  # an hour before Stripe may forget a key


def since_s(first_us: int) -> int:
    """From when on a credit is looked for that was sent first then: clocks may differ by some hours."""
    return max(0, first_us // 1_000_000 - 86_400)


class Credit(Struct, frozen=True):
    """The step's arguments: those of `actors.steps.MirrorCredit`, which an adapter does not know."""

    customer: str
    amount_minor: int
    currency: str
    ledger_key: str
    first_us: int
    generation: int = 0
    look_up: bool = False
    # The rest is the sender's own: `spent`, `resent`.

    @property
    def key(self) -> str:
        """The idempotency key of this generation."""
        return f"{self.ledger_key}#{self.generation}" if self.generation else self.ledger_key


class StripeMirror:
    """Implements `amends.ports.steps.StepRunner` for `stripe.credit`.

    `now_us` is the clock that `first_us` was read from. A look-up reads at most `max_pages` times 100 transactions.
    """

    def __init__(self, api: StripeApi, *, now_us: Callable[[], int], max_pages: int = MAX_PAGES) -> None:
        self._api, self._now_us, self._max_pages = api, now_us, max_pages

    async def run(self, call: StepCall) -> Outcome:
        """One try, within `call.timeout_ms`; codes are those of `outcomes`, `stripe_timeout` and `stripe_too_many`."""
        credit = msgspec.convert(call.args, Credit)
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                if credit.look_up or self._now_us() - credit.first_us >= FORGOTTEN_US:
                    known = await self._looked_up(credit)
                    if known is not None:
                        return known
                return await self._sent(credit)
        except TimeoutError:
            return Outcome("unknown", "stripe_timeout", f"no answer within {call.timeout_ms} ms")

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def _sent(self, credit: Credit) -> Outcome:
        try:
            made = await self._api.credit(
                credit.customer, credit.amount_minor, credit.currency, credit.ledger_key, credit.key
            )
        except StripeApi.ALL_ERRORS as error:
            return outcome_of(error, self._api.without_key(str(error)))
        return Outcome("done", data={"transaction": made})

    async def _looked_up(self, credit: Credit) -> Outcome | None:
        """What is known of the credit; None: it is not there, and may be sent."""
        try:
            async for one in self._api.transactions(credit.customer, self._max_pages, since_s(credit.first_us)):
                if one.ledger_key == credit.ledger_key:
                    return _found(credit, one)
        except TooManyTransactions as error:
            return Outcome("unknown", "stripe_too_many", f"{error}: whether {credit.ledger_key} is among them is open")
        except StripeApi.ALL_ERRORS as error:
            outcome = outcome_of(error, self._api.without_key(str(error)))
            # An earlier try may have run, and nobody could be asked.
            kind = "failed" if outcome.code in ("stripe_refused", "stripe_unauthorized") else "unknown"
            return msgspec.structs.replace(outcome, kind=kind, may_have_run=True)
        return None


def _found(credit: Credit, one: Transaction) -> Outcome:
    if (one.amount_minor, one.currency) == (-credit.amount_minor, credit.currency):
        return Outcome("done", data={"transaction": one.transaction})
    words = f"{one.transaction} stands for {credit.ledger_key}, with {one.amount_minor} {one.currency}"
    return Outcome("failed", "stripe_idempotency", words, data={"transaction": one.transaction})
