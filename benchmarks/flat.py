"""Whether something grows with what is done: a line fitted to samples by least squares, and how sure its slope is.

Neighbouring samples are alike, so they count as few as the parts that they are averaged over.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

PARTS: Final = 12


class Growth(Struct, frozen=True):
    """How much a thing grows with each one done, how far that may be off (two standard errors), and what is borne."""

    name: str
    first: float
    last: float
    each: float
    off: float
    most: float

    @property
    def flat(self) -> bool:
        """It grows by no more than is borne."""
        return self.each <= self.most

    @property
    def sharp(self) -> bool:
        """A growth of what is borne would have been seen."""
        return self.off <= self.most


def growth(name: str, done: Sequence[float], samples: Sequence[float], most: float) -> Growth:
    """Of samples, each taken when so many were done; `most`: what is borne of each one."""
    xs, ys = _parts(done), _parts(samples)
    slope, intercept = statistics.linear_regression(xs, ys)
    left = sum((y - intercept - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    spread = sum((x - statistics.fmean(xs)) ** 2 for x in xs)
    off = 2 * math.sqrt(left / max(1, len(xs) - 2) / spread)
    return Growth(name, round(ys[0], 1), round(ys[-1], 1), slope, off, most)


def _parts(values: Sequence[float]) -> list[float]:
    size = len(values) / PARTS
    return [statistics.fmean(values[int(n * size) : int((n + 1) * size)]) for n in range(PARTS)]


def quantile(values: Sequence[float], share: float) -> float:
    """The least of the values that so many are not above."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
