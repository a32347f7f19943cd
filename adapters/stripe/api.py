"""Stripe's API as we use it: make a credit, read a customer's balance transactions. Without retries of its own."""

from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import stripe
from msgspec import Struct
from stripe.params import CustomerBalanceTransactionListParams

stripe.enable_telemetry = False  # or it writes a file into the home directory, and tells how long calls took

CONNECT_TIMEOUT_S: Final = 5.0
PAGE: Final = 100  # Stripe gives no more at once
MAX_PAGES: Final = 100
SOURCE: Final = "amends"  # `metadata.source` of all that we make


class Transaction(Struct, frozen=True):
    """A customer balance transaction. `amount_minor` is Stripe's: below zero for a credit."""

    transaction: str
    amount_minor: int
    currency: str
    ledger_key: str
    source: str


class TooManyTransactions(Exception):
    """The customer has more than may be read; nothing is known of those that were not."""


class StripeApi:
    """One account at Stripe, or at a simulator (`api_base`). Raises what the library and aiohttp raise.

    `ALL_ERRORS` names that. No call has a time limit of its own but for connecting: set one around it.
    """

    ALL_ERRORS: Final = (stripe.StripeError, aiohttp.ClientError)

    def __init__(self, api_key: str, *, api_base: str = "", connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout_s)
        self._http = stripe.AIOHTTPClient(timeout=timeout)
        self._key = api_key
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base.rstrip("/"), "meter_events": api_base.rstrip("/")} if api_base else None,
            http_client=self._http,
            max_network_retries=0,
        )

    async def credit(self, customer: str, amount_minor: int, currency: str, ledger_key: str, key: str) -> str:
        """Credit a customer with `amount_minor` (> 0), under the idempotency key `key`; the transaction's id."""
        made = await self._client.v1.customers.balance_transactions.create_async(
            customer,
            {
                "amount": -amount_minor,
                "currency": currency,
                "metadata": {"ledger_key": ledger_key, "source": SOURCE},
            },
            {"idempotency_key": key},
        )
        return made.id

    async def transactions(
        self, customer: str, max_pages: int = MAX_PAGES, since_s: int = 0
    ) -> AsyncIterator[Transaction]:
        """All balance transactions of a customer since then, the newest first.

        Raises `TooManyTransactions` beyond the bound.
        """
        after = ""
        for _ in range(max_pages):
            asked: CustomerBalanceTransactionListParams = {"limit": PAGE}
            if since_s:
                asked["created"] = {"gte": since_s}
            if after:
                asked["starting_after"] = after
            page = await self._client.v1.customers.balance_transactions.list_async(customer, asked)
            for one in page.data:
                said = one.metadata.to_dict() if one.metadata else {}
                yield Transaction(one.id, one.amount, one.currency, said.get("ledger_key", ""), said.get("source", ""))
            if not page.has_more or not page.data:
                return
            after = page.data[-1].id
        raise TooManyTransactions(f"{customer} has more than {max_pages * PAGE} balance transactions")

    def without_key(self, text: str) -> str:
        """The text as one short line in which the API key does not stand."""
        line = " ".join(text.replace(self._key, "(the API key)").split()) if self._key else " ".join(text.split())
        return line if len(line) <= 300 else f"{line[:299]}…"

    async def close(self) -> None:
        """Close all connections. What is under way fails."""
        await self._http.close_async()  # type: ignore[no-untyped-call]
