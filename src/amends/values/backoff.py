"""Exponential back-off with full jitter, as a pure function of a seed and what is being retried."""

import hashlib

from msgspec import Struct


class Backoff(Struct, frozen=True):
    """Bounds of the waits between tries: `first_ms` doubles up to `cap_ms`."""

    first_ms: int
    cap_ms: int

    def delay_us(self, attempt: int, key: str, seed: int = 0) -> int:
        """Microseconds to wait after the `attempt`-th try (1-based) of `key`: uniform in (0, ceiling].

        The same seed and key give the same wait, so a simulated run replays. At least 1 ms, so no retry spins.
        """
        ceiling = min(self.cap_ms, self.first_ms << min(attempt - 1, 30)) * 1000
        digest = hashlib.blake2b(f"{seed}/{key}/{attempt}".encode(), digest_size=8).digest()
        return max(1000, int.from_bytes(digest, "big") % ceiling + 1)
