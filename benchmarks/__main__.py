"""Run the benchmarks, one module after another, each a process of its own: figures with their floors, and two peers.

`./run bench` prints the table and writes `docs/performance.md`; `--json FILE` keeps each figure as a line.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adapters.embedded.process import death_signal_prefix
from benchmarks.figures.table import MODULES
from benchmarks.page import page, table
from tools.version import commit

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
Row = dict[str, Any]


def measured(module: str, scale: float) -> Iterator[Row]:
    """The figures of a module, as they come; it is said where it ends with an error."""
    command = [*death_signal_prefix(None), sys.executable, "-m", module, "--scale", str(scale)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: S603 - ours
        assert child.stdout is not None
        for line in child.stdout:
            yield json.loads(line)
    if child.returncode:
        print(f"bench: {module} has ended with status {child.returncode}; its figures are missing", file=sys.stderr)


def facts(scale: float) -> dict[str, str]:
    """What the figures are of."""
    return {
        "commit": commit()[:7] or "unknown", "python": platform.python_version(), "scale": f"{scale:g}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release().partition('-')[0]}",
    }  # fmt: skip


def said(row: Row, about: dict[str, str]) -> Row:
    """A figure with its median, and what it is of."""
    values = [round(value, 3) for value in row["values"]]
    return {
        "name": row["name"], "value": statistics.median(values), "unit": row["unit"], "runs": len(values),
        "min": min(values), "max": max(values), **about,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(prog="./run bench")
    parser.add_argument("--json", type=Path, help="also append each figure to this file, one JSON object a line")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual size")
    parser.add_argument("--only", choices=[*MODULES, "peers"], action="append", help="these modules alone")
    parser.add_argument("--no-peers", action="store_true", help="do not install and measure DBOS and Restate")
    parser.add_argument(
        "--page", type=Path, help="write the page there; without it docs/performance.md, of a whole run"
    )
    options = parser.parse_args(arguments)
    about, rows = facts(options.scale), list[Row]()
    for name in options.only or [*MODULES, *([] if options.no_peers else ["peers"])]:
        module = "benchmarks.peers" if name == "peers" else f"benchmarks.figures.{name}"
        print(f"bench: {name}", file=sys.stderr, flush=True)
        for row in measured(module, options.scale):
            rows.append(said(row, about))
            print(json.dumps(rows[-1]), flush=True)
            if options.json is not None:
                with options.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))
    target = options.page or (PAGE if options.scale == 1 and not options.only else None)
    if target is not None:
        target.write_text(page(rows, about), encoding="utf-8")
        print(f"bench: {target} written", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
