"""`./run campaign`: many random worlds, one for each seed, side by side; it goes on where it was stopped.

The ledger `DIR/ledger.jsonl` has a line for each seed that has ended: what was asked for, faults by kind, what was
broken, seconds of a core. Seeds that are there with the same hours and nodes are not lived again.
"""

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from supervisors.simulation.fault_kinds import BY_NAME
from supervisors.simulation.program import terms_of
from supervisors.simulation.random_world import RandomWorld, Wish
from supervisors.simulation.report import summary
from tools.ledger import Line, gone_through

PAGE: Final = Path(__file__).parents[1] / "docs" / "reliability.md"
BLOCK: Final = re.compile(r"(<!-- campaign -->\n).*?(<!-- /campaign -->)", re.DOTALL)
KEPT: Final = ("seed", "nodes", "hours", "customers", "crashes", "events", "digest", "faults", "violations", "seconds")


def live(seed: int, hours: float, nodes: int) -> Line:
    """One world, as a line of the ledger; built-in policy, the timing of the profile `production`."""
    terms, _ = terms_of(None, None, {})
    said = summary(RandomWorld(Wish(seed=seed, hours=hours, nodes=nodes, terms=terms, kinds=tuple(BY_NAME))).run())
    return {**{name: said[name] for name in KEPT}, "asked_hours": hours}


def report(lines: list[Line]) -> str:
    """What all of it came to, as Markdown."""
    faults = Counter[str]()
    for line in lines:
        faults.update(line["faults"])
    hours, seconds = (sum(line[name] for line in lines) for name in ("hours", "seconds"))
    broken = [line for line in lines if line["violations"]]
    customers, crashes = (sum(line[name] for line in lines) for name in ("customers", "crashes"))
    said = (
        f"{len(lines)} seeds of {lines[0]['asked_hours']:g} hours, {lines[0]['nodes']} nodes: {hours:.0f} simulated "
        f"hours, {customers} customers, {crashes} crashes, {sum(faults.values())} faults of {len(faults)} kinds; "
        f"{seconds:.0f} seconds of a core, {hours / max(seconds, 1e-9):.2f} simulated hours a second of one. "
        f"Seeds with something broken: {len(broken)}."
    )
    text = [
        said,
        "",
        "| kind of fault | fired |",
        "|---|---|",
        *(f"| `{name}` | {faults[name]} |" for name in BY_NAME),
    ]
    text += [f"- seed {line['seed']}: {each['name']} {each['ref']}: {each['what']}"
             for line in broken for each in line["violations"][:3]]  # fmt: skip
    return "\n".join(text)


def campaign(o: argparse.Namespace) -> int:
    """Live what the ledger lacks; 1 if something was broken in any of them."""
    lines = lived(range(1, o.seeds + 1), o.hours, o.nodes, o.workers, o.state)
    if lines is None:
        return 130
    print(report(lines))
    if o.report:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(BLOCK.sub(lambda found: f"{found[1]}{report(lines)}\n{found[2]}", text), encoding="utf-8")
    return int(any(line["violations"] for line in lines))


def lived(wanted: Sequence[int], hours: float, nodes: int, workers: int, state: Path) -> list[Line] | None:
    """A line for each of these seeds, those of the ledger and those that are lived now; None if it was interrupted."""

    def key_of(line: Line) -> int | None:
        return int(line["seed"]) if (line["asked_hours"], line["nodes"]) == (hours, nodes) else None

    return gone_through(wanted, state / "ledger.jsonl", key_of, partial(live, hours=hours, nodes=nodes), workers, told)


def told(line: Line) -> str:
    """A line in a word."""
    said = f"{len(line['violations'])} BROKEN" if line["violations"] else "sound"
    return f"seed {line['seed']}: {said}, {line['seconds']:.0f} s"


def parser() -> argparse.ArgumentParser:
    """What may be typed."""
    made = argparse.ArgumentParser(prog="./run campaign", description="many random worlds, with a ledger")
    made.add_argument("--hours", type=float, default=4.0, help="simulated hours of each")
    made.add_argument("--nodes", type=int, default=10, help="machines of each")
    made.add_argument("--seeds", type=int, default=100, help="how many: 1 to N")
    made.add_argument("--state", type=Path, default=Path(".campaign"), metavar="DIR", help="where the ledger is")
    made.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="worlds side by side")
    made.add_argument("--report", action="store_true", help="write its figures into docs/reliability.md")
    return made


if __name__ == "__main__":
    sys.exit(campaign(parser().parse_args()))
