"""Metrics as they are told: (name, type, help, samples).

A sample is (labels, value), or (suffix, labels, value) for the parts of a histogram.
"""

from collections.abc import Mapping, Sequence

Number = int | float
Sample = tuple[Mapping[str, str], Number] | tuple[str, Mapping[str, str], Number]
Metric = tuple[str, str, str, Sequence[Sample]]
