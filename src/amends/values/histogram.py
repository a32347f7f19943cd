"""How long things took, counted into buckets: cheap enough for every commit and request."""

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from amends.values.metrics import Exemplar

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LONG = (0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)  # what may wait for a person


class Histogram:
    """Observations in seconds; of each bucket the newest trace that fell into it, as an exemplar."""

    __slots__ = ("_bounds", "_counts", "_newest", "total_s")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._newest: dict[int, tuple[str, float, float]] = {}
        self.total_s = 0.0

    def observe(self, seconds: float, trace_id: str = "") -> None:
        """One took so long; `trace_id`, 32 hex digits, shows it."""
        place = bisect_left(self._bounds, seconds)
        self._counts[place] += 1
        self.total_s += seconds
        if trace_id:
            self._newest[place] = (trace_id, seconds, time.time())

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def cumulative(self) -> Iterator[tuple[str, int, Exemplar | None]]:
        """(upper bound, how many took no longer, a trace of the bucket), the last bound `+Inf`."""
        so_far = 0
        for place, (bound, count) in enumerate(zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True)):
            so_far += count
            newest = self._newest.get(place)
            yield bound, so_far, Exemplar(*newest) if newest else None
