"""A recovery run as bars over time: what failed, what was done about it, what was undone, in the order of the doing."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

WIDTH: Final = 1_000
LEAST: Final = 4  # of the width: what took no time is seen all the same


class Bar(Struct):
    """One record: where its bar begins and how wide it is, in thousandths of the run."""

    kind: str
    label: str
    target: str
    outcome: str
    at_us: int
    took_ms: int | None
    x: int = 0
    width: int = LEAST
    superseded: bool = False


def waterfall(
    run: Mapping[str, Any], failures: Iterable[Mapping[str, Any]], actions: Iterable[Mapping[str, Any]],
    compensations: Iterable[Mapping[str, Any]],
) -> list[Bar]:  # fmt: skip
    """Failures, then actions and compensations as they are numbered."""
    bars = [
        Bar("failure", str(row.get("code") or row.get("failure_type")), str(row.get("ref") or row.get("component")),
            str(row.get("severity")), _us(row), None)
        for row in failures
    ]  # fmt: skip
    bars.sort(key=lambda bar: bar.at_us)
    undone = list(compensations)
    replaced = {str((row.get("metadata") or {}).get("supersedes")) for row in undone if _has_metadata(row)}
    done = [
        (row["sequence"], Bar("action", str(row.get("action_type")), str(row.get("target_ref")),
                              str(row.get("outcome")), _us(row), row.get("duration_ms")))
        for row in actions
    ] + [
        (row["sequence"], Bar("compensation", f"{row.get('compensation_type')} {row.get('compensated_action_type')}",
                              str(row.get("target_ref")), str(row.get("outcome")), _us(row), row.get("duration_ms"),
                              superseded=str(row.get("compensation_id")) in replaced))
        for row in undone
    ]  # fmt: skip
    bars += [bar for _, bar in sorted(done, key=lambda each: each[0])]
    _place(bars, run.get("started_us"), run.get("ended_us"))
    return bars


def _has_metadata(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("metadata"), Mapping)


def _place(bars: list[Bar], started_us: Any, ended_us: Any) -> None:
    ends = [bar.at_us for bar in bars] + [each for each in (started_us, ended_us) if isinstance(each, int)]
    begins = [bar.at_us - (bar.took_ms or 0) * 1000 for bar in bars]
    if not ends:
        return
    first, last = min([*begins, *ends]), max(ends)
    span = max(last - first, 1)
    for bar, begin in zip(bars, begins, strict=True):
        bar.x = min((begin - first) * WIDTH // span, WIDTH - LEAST)
        bar.width = max(min((bar.at_us - first) * WIDTH // span, WIDTH) - bar.x, LEAST)


def _us(row: Mapping[str, Any]) -> int:
    at = row.get("at_us")
    if isinstance(at, int):
        return at
    try:
        return int(datetime.fromisoformat(str(row.get("timestamp"))).timestamp() * 1_000_000)
    except ValueError:
        return 0
