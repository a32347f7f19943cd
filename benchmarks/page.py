"""What `./run bench` shows: its table, and `docs/performance.md`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.figures.table import FIGURES, Figure

Row = Mapping[str, Any]
PROCESSES = {
    "runtime": "the runtime, with the callers", "postgres": "Postgres, for the commits and for the spans",
    "nats": "nats-server", "exporter": "the exporter of spans", "receiver": "the receiver, which decodes them",
}  # fmt: skip
HEAD = """# Performance

Written by `./run bench`, which repeats it: each figure from a process of its own, on servers of its own that are
started and ended with it (embedded Postgres with fsync, embedded nats-server with `sync_interval: always`), everything
on one machine. Medians where there are several runs. What a figure is, what counts and what does not, stands in the
module that measures it (`benchmarks/figures/`).
"""
PROFILE = """## Where the time goes
Processor time for each life, with everything running, in microseconds. A core has a million of them a second: so many
lives there can be at most as its cores' million by the sum, and no more than a million by the runtime's own.
"""
COUNTED = """## What does not depend on the machine
`python -m benchmarks.cost` counts rows, log and calls of a life; `tests/benchmarks/test_cost.py` holds them to a stored
figure in every run of the tests.
"""


def table(rows: Sequence[Row]) -> str:
    """The figures with their floors, for a terminal; all others behind them."""
    known = {row["name"]: row for row in rows}
    lines = [("figure", "value", "floor", "", "aim", "what")]
    lines += [
        (figure.name, _number(row), _floor(figure), _mark(figure, row), figure.aim, figure.what)
        for figure in FIGURES
        if (row := known.get(figure.name)) is not None
    ]
    named = {figure.name for figure in FIGURES}
    lines += [(row["name"], _number(row), "", "", "", "") for row in rows if row["name"] not in named]
    widths = [max(len(line[place]) for line in lines) for place in range(5)]
    return "\n".join("  ".join([*map(str.ljust, line[:5], widths), line[5]]).rstrip() for line in lines)


def page(rows: Sequence[Row], about: Mapping[str, str]) -> str:
    """`docs/performance.md`."""
    known = {row["name"]: row for row in rows}
    return "\n".join(
        [HEAD, *_machine(about), *_figures(known), *_missed(known), *_profile(known), *_rest(rows), COUNTED]
    )


def _machine(about: Mapping[str, str]) -> Iterator[str]:
    yield f"Commit {about['commit']}, Python {about['python']}, {about['machine']}, `--scale {about['scale']}`.\n"


def _figures(known: Mapping[str, Row]) -> Iterator[str]:
    yield "## Figures\n| figure | what | value | floor | reached | aim | what limits it |"
    yield "|---|---|---|---|---|---|---|"
    for figure in FIGURES:
        row = known.get(figure.name)
        value, mark = (_number(row), _mark(figure, row)) if row is not None else ("not measured", "")
        yield (
            f"| `{figure.name}` | {figure.what} | {value} | {_floor(figure)} | {mark} | {figure.aim} | {figure.limit} |"
        )
    yield ""


def _missed(known: Mapping[str, Row]) -> Iterator[str]:
    missed = [each.name for each in FIGURES if each.name in known and each.reached(known[each.name]["value"]) is False]
    yield (
        f"Floors missed in this run: {', '.join(f'`{name}`' for name in missed)}.\n"
        if missed
        else "No floor is missed.\n"
    )


def _profile(known: Mapping[str, Row]) -> Iterator[str]:
    kinds = {"life": "done", "undone": "undone"}
    if not all(f"{kind}_us_runtime" in known for kind in kinds):
        return
    yield PROFILE
    yield "| process | done | undone |\n|---|---|---|"
    for name, what in PROCESSES.items():
        used = [f"{known[f'{kind}_us_{name}']['value']:.0f}" for kind in kinds]
        yield f"| {what} | {used[0]} | {used[1]} |"
    sums = [sum(known[f"{kind}_us_{name}"]["value"] for name in PROCESSES) for kind in kinds]
    yield f"| together | {sums[0]:.0f} | {sums[1]:.0f} |\n"


def _rest(rows: Sequence[Row]) -> Iterator[str]:
    named = {figure.name for figure in FIGURES}
    yield "## All other figures\n| figure | value |\n|---|---|"
    yield from (
        f"| `{row['name']}` | {_number(row)} |"
        for row in rows
        if row["name"] not in named and "_us_" not in row["name"]
    )
    yield ""


def _number(row: Row) -> str:
    value = float(row["value"])
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3
    said = f"{value:,.{digits}f}".replace(",", " ")
    spread = ""
    if row["runs"] > 1 and row["max"] > row["min"]:
        spread = f" ({row['min']:.{digits}f}–{row['max']:.{digits}f})"
    unit = row["unit"]
    return f"{said}{unit if unit == '/s' else f' {unit}' if unit else ''}{spread}"


def _floor(figure: Figure) -> str:
    if figure.floor is None:
        return "–"
    return f"{'≥' if figure.better == 'more' else '≤'} {figure.floor:,g}".replace(",", " ")


def _mark(figure: Figure, row: Row) -> str:
    reached = figure.reached(float(row["value"]))
    return "" if reached is None else "yes" if reached else "no"
