"""What the modules of figures share: the option `--scale`, one JSON object a line, progress on standard error."""

import argparse
import json
import sys
from collections.abc import Awaitable, Callable, Sequence

import uvloop

Report = Callable[[str, Sequence[float], str], None]


def report(name: str, values: Sequence[float], unit: str) -> None:
    """Print the values of one figure, a value for each run."""
    print(json.dumps({"name": name, "values": [round(value, 3) for value in values], "unit": unit}), flush=True)


def say(line: str) -> None:
    """Progress, for who waits."""
    print(line, file=sys.stderr, flush=True)


def main(measure: Callable[[Report, float], Awaitable[None]]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual size")
    scale = parser.parse_args().scale

    async def run() -> None:
        await measure(report, scale)

    uvloop.run(run())
