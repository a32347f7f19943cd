"""What a meter has counted by an instant, and the windows that are posted of it. Closed form: no sum ever drifts.

C(t) = floor(rate · floor((t − start) / unit_us) · unit_us / (3 600 000 000 · 1 000 000)), 0 up to the start
"""

from collections.abc import Iterator

from msgspec import Struct

HOUR_US = 3_600_000_000
MILLIONTHS = 1_000_000


class Usage(Struct, frozen=True):
    """One meter: `rate` in millionths of a minor unit per hour, from `start_us` on, counted in whole `unit_us`."""

    rate: int
    start_us: int
    unit_us: int

    def at(self, t_us: int) -> int:
        """C(t) in minor units."""
        if t_us <= self.start_us:
            return 0
        units = (t_us - self.start_us) // self.unit_us
        return self.rate * units * self.unit_us // (HOUR_US * MILLIONTHS)

    def between(self, from_us: int, to_us: int) -> int:
        """C(to) − C(from)."""
        return self.at(to_us) - self.at(from_us)


class Window(Struct, frozen=True):
    """A debit to be posted: the usage of [from, to), keyed by the grid's start although it may be cut at either end."""

    start_us: int
    from_us: int
    to_us: int
    amount_minor: int


def grid_start(t_us: int, window_us: int) -> int:
    """The start of the window that an instant lies in."""
    return t_us - t_us % window_us


def window_end(t_us: int, window_us: int) -> int:
    """The end of the window that an instant lies in, which begins it."""
    return grid_start(t_us, window_us) + window_us


def windows(usage: Usage, window_us: int, posted_us: int, until_us: int) -> Iterator[Window]:
    """The windows that cover [posted, until), in order, the first and the last cut; none where that is empty (B2)."""
    at_us = max(posted_us, usage.start_us)
    while at_us < until_us:
        end_us = min(window_end(at_us, window_us), until_us)
        yield Window(grid_start(at_us, window_us), at_us, end_us, usage.between(at_us, end_us))
        at_us = end_us
