"""Webhooks of the simulated Stripe: events on their way to endpoints over HTTP, signed, tried again, or as told.

Follows "Receive Stripe events in your webhook endpoint": any 2xx is taken, everything else is tried again after growing
waits; each try has a signature and a time of its own; order is not kept, and an event may come more than once. Times of
signatures are the wall clock's, whatever the simulator's own clock says.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import aiohttp
from msgspec import Struct

from adapters.simulated.stripe_errors import Thing, invalid
from adapters.simulated.stripe_events import encoded, signature

MAX_UNDER_WAY: Final = 10_000  # tries; what is beyond is dropped and counted
MAX_DELIVERIES: Final = 20_000  # remembered
AT_ONCE: Final = 32
TIMEOUT_S: Final = 10.0


class Endpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is told. `secrets`: the current one first, then the previous; `events`: their types, none for all."""

    url: str
    secrets: list[str]
    events: list[str] = []


class Manner(Struct, frozen=True, forbid_unknown_fields=True):
    """How events are sent: `duplicates` times each (1 to 5), `delay_s` later, shuffled among `reorder` at a time.

    `secret`: which one signs; `tries` and `retry_s`: how often, and the first wait, which doubles. `held`: not at all
    until told otherwise.
    """

    duplicates: int = 1
    delay_s: float = 0.0
    reorder: int = 0
    secret: int = 0
    tries: int = 8
    retry_s: float = 0.2
    held: bool = False

    def __post_init__(self) -> None:
        if not (1 <= self.duplicates <= 5 and 0 <= self.reorder <= 1000 and 1 <= self.tries <= 100):
            raise ValueError("duplicates 1 to 5, reorder 0 to 1000, tries 1 to 100")
        if not (0 <= self.delay_s <= 3600 and 0 < self.retry_s <= 3600):
            raise ValueError("delay_s and retry_s are at most an hour")


class Send(Struct, frozen=True, forbid_unknown_fields=True):
    """An event to be sent now, once more: `times` at once. `skew_s`: the signature's time, from now; `body` another."""

    event: str
    times: int = 1
    secret: int = 0
    skew_s: float = 0.0
    body: str | None = None


class Delivery(Struct, frozen=True):
    """One try. `status` 0: no answer."""

    event: str
    type: str
    url: str
    attempt: int
    status: int
    at_s: float


class Webhooks:
    """Sends events to all endpoints. `send` wants a running loop; `close` ends what is under way."""

    def __init__(self, seed: int = 0) -> None:
        self.endpoints: list[Endpoint] = []
        self.deliveries: deque[Delivery] = deque(maxlen=MAX_DELIVERIES)
        self.dropped = 0
        self._manner = Manner()
        self._waiting: list[Thing] = []  # held, or waiting for others to be shuffled with
        self._chance = random.Random(seed)  # noqa: S311 - an order, not a secret
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    @property
    def under_way(self) -> int:
        """Events that some endpoint has not taken yet."""
        return len(self._tasks) + len(self._waiting)

    def follow(self, event: Thing) -> None:
        """A listener of the book: the event goes out in the present manner."""
        if len(self._waiting) + len(self._tasks) >= MAX_UNDER_WAY:
            self.dropped += 1
            return
        self._waiting.append(event)
        if not self._manner.held and len(self._waiting) >= self._manner.reorder:
            self.flush()

    def behave(self, manner: Manner) -> None:
        """Change the manner; what waited goes out unless it is held."""
        self._manner = manner
        if not manner.held:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        events, self._waiting = self._waiting, []
        if self._manner.reorder > 1:
            self._chance.shuffle(events)
        for event in events:
            for endpoint in self.endpoints:
                if not endpoint.events or event["type"] in endpoint.events:
                    for _ in range(self._manner.duplicates):
                        self._start(self._deliver(endpoint, event, self._manner))

    async def send(self, event: Thing, how: Send) -> list[int]:
        """Send it now to all endpoints, `how.times` at once; the statuses, 0 for no answer. Not tried again."""
        if not 1 <= how.times <= 100:
            raise invalid("times is 1 to 100", "times")
        body = encoded(event) if how.body is None else how.body.encode()
        at_s = time.time() + how.skew_s
        tries = [
            self._post(endpoint, event, body, how.secret, at_s, 1)
            for endpoint in self.endpoints
            for _ in range(how.times)
        ]
        return list(await asyncio.gather(*tries))

    async def close(self) -> None:
        """Nothing is sent any more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, endpoint: Endpoint, event: Thing, manner: Manner) -> None:
        body, wait_s = encoded(event), manner.retry_s
        await asyncio.sleep(manner.delay_s)
        for attempt in range(1, manner.tries + 1):
            async with self._places:
                status = await self._post(endpoint, event, body, manner.secret, time.time(), attempt)
            if 200 <= status < 300:
                return
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, 60.0)

    async def _post(
        self, endpoint: Endpoint, event: Thing, body: bytes, secret: int, at_s: float, attempt: int
    ) -> int:  # fmt: skip
        session = self._session = self._session or aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S))
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+simulated)",
            "Stripe-Signature": signature(body, _chosen(endpoint.secrets, secret), at_s),
        }
        try:
            async with session.post(endpoint.url, data=body, headers=headers, allow_redirects=False) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            status = 0
        self.deliveries.append(Delivery(event["id"], event["type"], endpoint.url, attempt, status, time.time()))
        return status


def _chosen(secrets: Sequence[str], index: int) -> str:
    """The secret of that place; one that nobody knows where there is none."""
    return secrets[index] if 0 <= index < len(secrets) else "whsec_nobody_knows"
