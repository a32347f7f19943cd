"""The step that mirrors a credit, over HTTP and in memory, each with a simulated Stripe that can be broken."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import time
from typing import Any

from adapters.simulated.stripe_book import API_KEY, StripeBook
from adapters.simulated.stripe_faults import FaultKind, StripeFault
from adapters.simulated.stripe_server import StripeSimulator
from adapters.simulated.stripe_steps import SimulatedMirror, SimulatedStripe
from adapters.stripe.api import StripeApi
from adapters.stripe.mirror import StripeMirror
from amends.ports.steps import Outcome, StepCall, StepRunner

KEY = "credit:meter_1:offline"
HOUR_S = 3600.0


class Mirroring:
    """A mirror, and the Stripe behind it. `first_us` is when the credit was sent first."""

    def __init__(
        self, book: StripeBook, mirror: Callable[[str, int], StepRunner], up: Callable[[bool], Awaitable[None]]
    ) -> None:
        self.book, self.up, self._mirror = book, up, mirror
        self.customer = str(book.call("POST", "/v1/customers")["id"])
        self.first_us = self.now_us()

    def now_us(self) -> int:
        return int(self.book.now_s() * 1e6)

    async def credit(
        self, *, api_key: str = API_KEY, timeout_ms: int = 20_000, max_pages: int = 100, **changes: Any
    ) -> Outcome:
        """One try."""
        args = {
            "customer": self.customer, "amount_minor": 250, "currency": "usd", "ledger_key": KEY,
            "first_us": self.first_us, **changes,
        }  # fmt: skip
        call = StepCall(
            "step_1", "stripe.credit", "account:a1", "account:a1", args, 1, "key_1", 1, timeout_ms, "a" * 32, "b" * 16
        )
        return await self._mirror(api_key, max_pages).run(call)

    def fault(self, kind: FaultKind, times: int = 1, seconds: float = 0.0, match: str = "POST") -> None:
        self.book.faults.add(StripeFault(kind, times, seconds, match))

    def made(self) -> list[tuple[int, str]]:
        """Amount and ledger key of all transactions of the customer."""
        found = self.book.of("customer_balance_transaction").values()
        return [(each["amount"], each["metadata"].get("ledger_key", "")) for each in found]

    def asked(self) -> list[str]:
        """Method and idempotency key of all requests."""
        return [f"{seen.method} {seen.key}".strip() for seen in self.book.seen]


@asynccontextmanager
async def over_http() -> AsyncIterator[Mirroring]:
    simulator = StripeSimulator()
    await simulator.start()
    mirrors: dict[tuple[str, int], StripeMirror] = {}

    def mirror(api_key: str, max_pages: int) -> StepRunner:
        if (api_key, max_pages) not in mirrors:
            api = StripeApi(api_key, api_base=simulator.url)
            mirrors[api_key, max_pages] = StripeMirror(api, now_us=mirroring.now_us, max_pages=max_pages)
        return mirrors[api_key, max_pages]

    async def up(there: bool) -> None:
        await (simulator.accept() if there else simulator.refuse())

    mirroring = Mirroring(simulator.book, mirror, up)
    yield mirroring
    for each in mirrors.values():
        await each.close()
    await simulator.stop()


@asynccontextmanager
async def in_memory() -> AsyncIterator[Mirroring]:
    stripe = SimulatedStripe(time)

    def mirror(api_key: str, max_pages: int) -> StepRunner:
        return SimulatedMirror(stripe, now_us=mirroring.now_us, api_key=api_key, max_pages=max_pages)

    async def up(there: bool) -> None:
        stripe.up = there

    mirroring = Mirroring(stripe.book, mirror, up)
    yield mirroring
