"""Time and chance, handed in: what a simulated world replaces."""

import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct


def _wall_us() -> int:
    return time.time_ns() // 1000


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class _Pool:
    """The system's randomness, fetched so much at a time: a call of the system for each turn is a hundredth of it."""

    SIZE = 4096

    def __init__(self) -> None:
        self._bytes, self._at, self._process = b"", 0, 0

    def __call__(self, count: int) -> bytes:
        if self._at + count > len(self._bytes) or self._process != os.getpid():  # a fork's are its own
            self._bytes, self._at, self._process = secrets.token_bytes(max(self.SIZE, count)), 0, os.getpid()
        self._at += count
        return self._bytes[self._at - count : self._at]


class Sources(Struct, frozen=True):
    """Where a runtime has its time and its chance from. Waiting is the event loop's; times in microseconds.

    `entropy(n)` gives n bytes nobody can guess: ids and the seeds of turns are made from them.
    """

    wall_us: Callable[[], int] = _wall_us
    monotonic_us: Callable[[], int] = _monotonic_us
    entropy: Callable[[int], bytes] = _Pool()


REAL = Sources()

PeerClock = Callable[[], Awaitable[int | None]]  # microseconds since the epoch; None: it does not tell
NO_PEERS: Mapping[str, PeerClock] = {}
