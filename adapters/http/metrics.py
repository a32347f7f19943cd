"""Prometheus' text format: metrics (`amends.values.metrics`) → one text."""

from collections.abc import Iterable

from amends.values.metrics import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def prometheus_text(metrics: Iterable[Metric]) -> str:
    """The exposition of these metrics, in their order."""
    lines = []
    for name, kind, purpose, samples in metrics:
        lines.append(f"# HELP {name} {_escaped(purpose)}")
        lines.append(f"# TYPE {name} {kind}")
        for sample in samples:
            suffix, labels, value = sample if len(sample) == 3 else ("", *sample)
            pairs = ",".join(f'{key}="{_escaped(text, quotes=True)}"' for key, text in labels.items())
            lines.append(f"{name}{suffix}{{{pairs}}} {value}" if pairs else f"{name}{suffix} {value}")
    return "\n".join(lines) + "\n"


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text
