"""Plain text for terminals: tables that fit, records, trees. Nothing that comes from outside can move the cursor."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from amends.values.text import printable

NARROWEST: Final = 8
GAP: Final = "  "


def shown(column: str, value: Any) -> str:
    """One value as text: times as UTC, nothing as a dash, structures as JSON."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and column.endswith("_us"):
        return moment(value)
    if isinstance(value, dict) and all(isinstance(one, str | int) for one in value.values()):
        return printable(",".join(f"{name}={one}" for name, one in value.items())) or "-"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return printable(",".join(value)) or "-"
    if isinstance(value, dict | list):
        return printable(json.dumps(value, ensure_ascii=False))
    return printable(str(value))


def moment(at_us: int) -> str:
    """Microseconds since the epoch as `2026-01-31 12:00:00.123Z`."""
    try:
        time = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    except (OverflowError, ValueError, OSError):
        return str(at_us)
    return f"{time:%Y-%m-%d %H:%M:%S}.{at_us // 1000 % 1000:03d}Z"


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], width: int | None = None) -> str:
    """Rows under their columns, cut to `width` characters if it is given.

    Texts are cut first; then columns are left out from the right, so that ids stay whole and can be copied.
    """
    if not rows:
        return "(none)"
    columns = list(columns)
    while width is not None and _least(rows, columns) > width and any(map(_may_go, columns[1:])):
        columns.remove(next(column for column in reversed(columns[1:]) if _may_go(column)))
    cells = [[column.removesuffix("_us") for column in columns]]
    cells += [[shown(column, row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    if width is not None:
        widths = _fit(widths, columns, width)
    return "\n".join(
        GAP.join(_cut(text, size).ljust(size) for text, size in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def ordered(rows: Sequence[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    """By that column, `-column` backwards; what has none comes last."""
    name = column.removeprefix("-")
    have = [row for row in rows if row.get(name) is not None]
    have.sort(key=lambda row: (row[name] if isinstance(row[name], int) else 0, str(row[name])),
              reverse=column.startswith("-"))  # fmt: skip
    return have + [row for row in rows if row.get(name) is None]


def record(row: Mapping[str, Any]) -> str:
    """One row, a line for each value."""
    size = max((len(name) for name in row), default=0)
    return "\n".join(f"{name.ljust(size)}  {shown(name, value)}" for name, value in row.items())


def tree(node: Mapping[str, Any]) -> str:
    """A tree of `name`, `state`, `children`; other plain values stand behind the state."""
    return "\n".join(_branch(node, "", ""))


def _branch(node: Mapping[str, Any], first: str, rest: str) -> Iterable[str]:
    beside = [
        f"{name}={shown(name, value)}"
        for name, value in node.items()
        if name not in ("name", "state", "children") and value is not None and value != ""
    ]
    words = [shown("name", node.get("name")), *([shown("state", node["state"])] if "state" in node else []), *beside]
    yield first + GAP.join(words)
    children = node.get("children") or []
    for number, child in enumerate(children, 1):
        last = number == len(children)
        yield from _branch(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))


def _fit(widths: list[int], columns: Sequence[str], width: int) -> list[int]:
    """Narrow the widest column again and again, ids and states only when nothing else is left."""
    widths = list(widths)
    for spare in (_is_text, lambda column: not column.endswith("_id"), bool):
        while sum(widths) + len(GAP) * (len(widths) - 1) > width:
            wide = [i for i, column in enumerate(columns) if widths[i] > NARROWEST and spare(column)]
            if not wide:
                break
            widths[max(wide, key=lambda i: widths[i])] -= 1
    return widths


def _least(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> int:
    """The narrowest that these columns can be with their ids whole."""
    widths = [
        max(len(column.removesuffix("_us")), *(len(shown(column, row.get(column))) for row in rows))
        for column in columns
    ]
    least = [min(size, NARROWEST) if _is_text(column) else size for column, size in zip(columns, widths, strict=True)]
    return sum(least) + len(GAP) * (len(least) - 1)


def _may_go(column: str) -> bool:
    """Whether a narrow terminal is shown the rows without it."""
    return column not in ("state", "entity", "target_ref", "kind")


def _is_text(column: str) -> bool:
    return column in ("message", "reason", "labels", "subject", "quarantine_reasons", "details", "name")


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"
