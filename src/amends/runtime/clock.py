"""The runtime's clock: wall time at its start plus monotonic time, slewed gently, never backwards.

Money uses this clock only (credit-policy.md, Clock); intervals use the monotonic clock alone.
"""

from collections.abc import Callable

MAX_SLEW = 500  # parts per million
STEP_ALARM_US = 1_000_000


class Clock:
    """Microseconds since the Unix epoch, never below `floor_us`, the persisted high-water mark."""

    def __init__(self, wall_us: Callable[[], int], monotonic_us: Callable[[], int], floor_us: int = 0) -> None:
        self._wall, self._mono = wall_us, monotonic_us
        self._last = max(wall_us(), floor_us)
        self._last_mono = monotonic_us()
        self.offset_us = 0

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

    @property
    def stepped(self) -> bool:
        """Whether the wall clock differs by more than a second: degraded, and audited."""
        return abs(self.offset_us) > STEP_ALARM_US
