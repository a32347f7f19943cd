"""The runtime's clock: wall time at its start plus monotonic time, slewed gently, never backwards.

Money uses this clock only (credit-policy.md, Clock); intervals use the monotonic clock alone. A forward step of the
wall clock is taken at once where another clock confirms it; a backward one is always slewed.
"""

from collections.abc import Callable

MAX_SLEW = 500  # parts per million
STEP_ALARM_US = 1_000_000
WRONG_US = 2_000_000  # a start with a wall clock that far from Postgres' is refused


def ahead_of(peer_us: int, before_us: int, after_us: int) -> int:
    """How far a clock is ahead of another one that was asked between these two readings of it, in microseconds.

    What the asking took is in nobody's favour: within it the clocks agree.
    """
    return before_us - peer_us if peer_us < before_us else min(0, after_us - peer_us)


class Clock:
    """Microseconds since the Unix epoch, never below `floor_us`, the persisted high-water mark."""

    def __init__(self, wall_us: Callable[[], int], monotonic_us: Callable[[], int], floor_us: int = 0) -> None:
        self._wall, self._mono = wall_us, monotonic_us
        self._last = max(wall_us(), floor_us)
        self._last_mono = monotonic_us()
        self.offset_us = self.peer_offset_us = 0

    def now_us(self) -> int:
        """The time; two calls never run backwards."""
        mono = self._mono()
        elapsed = mono - self._last_mono
        if elapsed <= 0:
            return self._last
        ahead = self._last + elapsed
        self.offset_us = self._wall() - ahead
        limit = elapsed * MAX_SLEW // 1_000_000
        self._last = ahead + max(-limit, min(limit, self.offset_us))
        self._last_mono = mono
        return self._last

    def compare(self, peer_us: int, before_us: int, after_us: int) -> int:
        """How far the wall clock is ahead of another one (`ahead_of`).

        A forward step of the wall clock is taken at once when the other clock agrees with it.
        """
        self.peer_offset_us = ahead_of(peer_us, before_us, after_us)
        self.offset_us = self._wall() - self.now_us()
        if self.offset_us > STEP_ALARM_US and abs(self.peer_offset_us) <= STEP_ALARM_US:
            self._last += self.offset_us
            self.offset_us = 0
        return self.peer_offset_us

    @property
    def stepped(self) -> bool:
        """Whether the wall clock differs from this one, or from Postgres', by more than a second: degraded, audited."""
        return abs(self.offset_us) > STEP_ALARM_US or abs(self.peer_offset_us) > STEP_ALARM_US
