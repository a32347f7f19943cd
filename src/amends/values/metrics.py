"""Metrics as they are told: (name, type, help, samples).

A sample is (labels, value), or (suffix, labels, value, exemplar or None) for the parts of a histogram.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Exemplar(NamedTuple):
    """One that was counted: its trace, what it took, and when (unix time); both in seconds."""

    trace_id: str
    seconds: float
    at_s: float


Number = int | float
Sample = tuple[Mapping[str, str], Number] | tuple[str, Mapping[str, str], Number, Exemplar | None]
Metric = tuple[str, str, str, Sequence[Sample]]
