"""Every module of figures gives each figure that it declares, at a hundredth of its size: a number that can be."""

import asyncio
import json
import os
import sys
from importlib import import_module
from typing import Any

import pytest

from benchmarks.figures.table import FIGURES, MODULES, Figure
from benchmarks.page import page, table
from tests.patience import PATIENCE_S


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
async def test_a_module_gives_each_figure_that_it_declares(name: str) -> None:
    module = f"benchmarks.figures.{name}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, "--scale", "0.01", stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONWARNINGS": ""},
    )  # fmt: skip
    try:
        async with asyncio.timeout(6 * PATIENCE_S):
            said, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaint.decode()[-3000:]
    rows = {row["name"]: row for row in map(json.loads, said.splitlines())}
    assert tuple(rows) == import_module(module).NAMES
    for row in rows.values():
        assert row["unit"]
        assert row["values"]
        assert all(0 <= value < 1e7 for value in row["values"]), row


def test_every_figure_of_the_table_is_one_that_a_module_or_a_peer_gives() -> None:
    given = {name for module in MODULES for name in import_module(f"benchmarks.figures.{module}").NAMES}
    assert {figure.name for figure in FIGURES if not figure.name.startswith("peer_")} <= given
    assert all(figure.limit for figure in FIGURES if figure.floor is not None)


@pytest.mark.parametrize(("better", "value", "reached"), [("more", 9, False), ("more", 10, True), ("less", 11, False),
                                                           ("less", 10, True)])  # fmt: skip
def test_a_floor_is_reached_from_its_own_side(better: Any, value: float, reached: bool) -> None:
    assert Figure("f", "w", "", 10, "", better).reached(value) is reached
    assert Figure("f", "w", "").reached(value) is None


def row(name: str, value: float) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": "/s", "runs": 3, "min": value - 1, "max": value + 1}


def test_the_page_says_what_was_missed_what_was_not_measured_and_where_the_time_goes() -> None:
    about = {"commit": "abc", "python": "3", "machine": "m", "scale": "1"}
    rows = [row("lives_happy_512", 1234.0), row("spans_per_s", 99_999.0), row("due_at_once", 7.0)]
    said = page(rows, about)
    assert (
        "| `lives_happy_512` | three-step lives, 512 in flight, everything running: done | 1 234/s (1233–1235) |"
        in said
    )
    assert "Floors missed in this run: `lives_happy_512`.\n" in said
    assert said.count("not measured") == len(FIGURES) - 2
    assert "| `due_at_once` |" in said
    assert "Where the time goes" not in said
    used = [row(f"{kind}_us_{name}", 10.0) for kind in ("life", "undone")
            for name in ("runtime", "postgres", "nats", "receiver", "exporter")]  # fmt: skip
    assert "| together | 50 | 50 |" in page(used, about)
    assert "No floor is missed." in page(used, about)
    assert "≥ 5 000" in table(rows)
    assert "lives_compensated_512" not in table(rows)
