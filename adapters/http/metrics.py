"""Prometheus' text format: metrics as (name, type, help, [(labels, value)]) → one text."""

from collections.abc import Iterable, Mapping, Sequence

Metric = tuple[str, str, str, Sequence[tuple[Mapping[str, str], int | float]]]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def prometheus_text(metrics: Iterable[Metric]) -> str:
    """The exposition of these metrics, in their order."""
    lines = []
    for name, kind, purpose, samples in metrics:
        lines.append(f"# HELP {name} {_escaped(purpose)}")
        lines.append(f"# TYPE {name} {kind}")
        for labels, value in samples:
            pairs = ",".join(f'{key}="{_escaped(text, quotes=True)}"' for key, text in labels.items())
            lines.append(f"{name}{{{pairs}}} {value}" if pairs else f"{name} {value}")
    return "\n".join(lines) + "\n"


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text
