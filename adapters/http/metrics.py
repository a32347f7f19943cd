"""The texts of `/metrics`, by `prometheus_client`: metrics (`amends.values.metrics`) → Prometheus or OpenMetrics.

OpenMetrics is what asks for it gets (`Accept: application/openmetrics-text`), as Prometheus does when it is to keep
exemplars: a trace of each bucket of a histogram.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import core, exposition, samples
from prometheus_client.openmetrics import exposition as openmetrics

from amends.values.metrics import Metric

OPEN: Final = "application/openmetrics-text"
LEAST: Final = 1e-3  # the smallest weight there is but none


def exposition_of(metrics: Iterable[Metric], accept: str) -> tuple[bytes, str]:
    """The text of these metrics in their order, and its content type; `accept`: the header of who asks."""
    told = _Told(metrics)
    if _weight(accept, OPEN) >= max(_weight(accept, "text/plain"), LEAST):
        return openmetrics.generate_latest(told), openmetrics.CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call]
    return exposition.generate_latest(told), exposition.CONTENT_TYPE_PLAIN_0_0_4


def _weight(accept: str, kind: str) -> float:
    """How much a header wants that kind of text: its `q`, 0 where it is not named."""
    for each in accept.split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        if name.lower() == kind:
            given = next((part[2:] for part in parameters if part.lower().startswith("q=")), "1")
            try:
                return float(given)
            except ValueError:
                return 0.0
    return 0.0


class _Told:
    """What the library takes for a registry."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[core.Metric]:
        for name, kind, purpose, given in self._metrics:
            family = core.Metric(name.removesuffix("_total") if kind == "counter" else name, purpose, kind)
            for sample in given:
                if len(sample) == 2:
                    labels, value = sample
                    family.add_sample(name, dict(labels), value)
                else:
                    suffix, labels, value, newest = sample
                    shown = samples.Exemplar({"trace_id": newest[0]}, *newest[1:]) if newest else None
                    family.add_sample(f"{name}{suffix}", dict(labels), value, exemplar=shown)
            yield family
