"""Limits of callers (api.md 3): commands a second, and rentals of one account that still wait for a node."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from actors.allocation.messages import RequestAllocation
from amends.runtime.identity import Identity
from amends.values.errors import Rejected

OPEN_RETRY_MS: Final = 1000  # a rental is set up, or ends for want of a node, within seconds


class _Bucket(Struct):
    """Commands that a caller may still send now: one second's worth, filled as time goes on."""

    left: float
    at_s: float


class Admission:
    """Says no to what goes beyond a caller's limits; says which limit, and when to come again."""

    def __init__(self, open_requests: Callable[[str], int], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._open_requests, self._monotonic = open_requests, monotonic
        self._buckets: dict[str, _Bucket] = {}
        self._entering: Counter[str] = Counter()  # requests on their way into a turn, by account

    def command(self, identity: Identity) -> None:
        """One command is sent; raises `Rejected` (throttled)."""
        rate = identity.commands_per_s
        if not rate:
            return
        now_s = self._monotonic()
        bucket = self._buckets.setdefault(identity.name, _Bucket(rate, now_s))
        bucket.left = min(rate, bucket.left + (now_s - bucket.at_s) * rate)
        bucket.at_s = now_s
        if bucket.left < 1:
            raise Rejected(
                "throttled", f"{identity.name} may send {rate} commands a second (commands_per_s)",
                limit="commands_per_s", retry_after_ms=int((1 - bucket.left) / rate * 1000) + 1,
            )  # fmt: skip
        bucket.left -= 1

    def enter(self, request: Any, identity: Identity) -> Callable[[], None]:
        """A new command is about to become a turn; raises `Rejected` (throttled). Call the answer when that is over."""
        bound = identity.open_requests
        if not bound or not isinstance(request, RequestAllocation):
            return _nothing
        account = request.account_id
        if self._open_requests(account) + self._entering[account] >= bound:
            raise Rejected(
                "throttled", f"{bound} rentals of {account} wait for a node already (open_requests)",
                limit="open_requests", account_id=account, retry_after_ms=OPEN_RETRY_MS,
            )  # fmt: skip
        self._entering[account] += 1

        def over() -> None:
            self._entering[account] -= 1
            if not self._entering[account]:
                del self._entering[account]

        return over


def _nothing() -> None:
    """No limit was touched."""
