"""Time and chance, handed in: what a simulated world replaces."""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct


def _wall_us() -> int:
    return time.time_ns() // 1000


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class Sources(Struct, frozen=True):
    """Where a runtime has its time and its chance from. Waiting is the event loop's; times in microseconds.

    `entropy(n)` gives n bytes nobody can guess: ids and the seeds of turns are made from them.
    """

    wall_us: Callable[[], int] = _wall_us
    monotonic_us: Callable[[], int] = _monotonic_us
    entropy: Callable[[int], bytes] = secrets.token_bytes


REAL = Sources()

PeerClock = Callable[[], Awaitable[int | None]]  # microseconds since the epoch; None: it does not tell
NO_PEERS: Mapping[str, PeerClock] = {}
