"""`./run campaign pairs [ROW…]`: each story dies at each of its points, and once more at each of the recovery's.

The ledger `DIR/pairs.jsonl` has a line for each row, mode and first point that has ended, for each commit.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from supervisors.simulation.points import MODES, Points
from supervisors.simulation.stories import STORIES, Story
from supervisors.simulation.sweep import tell, wrong
from supervisors.simulation.world import World
from tools.ledger import Line, gone_through
from tools.version import commit

PAGE: Final = Path(__file__).parents[1] / "docs" / "reliability.md"
BLOCK: Final = re.compile(r"(<!-- pairs -->\n).*?(<!-- /pairs -->)", re.DOTALL)
BY_ROW: Final = {story.row: story for story in STORIES}
Part = tuple[str, str, int]  # row, mode, the first point


def recovered(story: Story, mode: str, first: int) -> int:
    """How many points the recovery from that crash has."""
    world, points = World(1, **story.limits), Points()
    story.breaks(world)
    world.run(story.tell, Points(first, mode))
    world.run(story.tell, points)
    return len(points.seen)


def swept(part: Part) -> Line:
    """All second crashes after a first one, as a line of the ledger."""
    row, mode, first = part
    story = BY_ROW[row]
    count, broken = recovered(story, mode, first), list[str]()
    for again in range(1, count + 1):
        try:
            told = tell(story, first, mode, again)
            found = [f"{each.name} {each.ref}: {each.what}" for each in wrong(story, told.world)]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
            found = [f"{type(error).__name__}: {error}"]
        broken += [f"died {mode} {first}, and at {again} of the recovery: {each}" for each in found[:2]]
    return {"row": row, "mode": mode, "first": first, "pairs": count, "broken": broken, "commit": commit()}


def key_of(line: Line) -> Part | None:
    """Whose line it is, None for another commit's."""
    return (line["row"], line["mode"], line["first"]) if line["commit"] == commit() else None


def said(line: Line) -> str:
    """In a word."""
    return f"{line['row']} {line['mode']} {line['first']}: {len(line['broken'])} of {line['pairs']} broken"


def table(lines: Sequence[Line]) -> str:
    """By row, as Markdown."""
    pairs, broken = sum(line["pairs"] for line in lines), sum(len(line["broken"]) for line in lines)
    text = [f"{pairs} pairs, {broken} of them broken.", "", "| row | first crashes | pairs |", "|---|---|---|"]
    for row in dict.fromkeys(line["row"] for line in lines):
        own = [line for line in lines if line["row"] == row]
        text.append(f"| {row} | {len(own)} | {sum(line['pairs'] for line in own)} |")
    return "\n".join(text)


def main(arguments: Sequence[str]) -> int:
    """0 if nothing is broken."""
    parser = argparse.ArgumentParser(prog="./run campaign pairs", description="two crashes, at every pair of points")
    parser.add_argument("rows", nargs="*", choices=[*BY_ROW, []], help="rows; all of them without any")
    parser.add_argument("--mode", choices=MODES, action="append", help="ways to die; all of them without any")
    parser.add_argument("--state", type=Path, default=Path(".campaign"), metavar="DIR", help="where the ledger is")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes side by side")
    parser.add_argument("--report", action="store_true", help="write the table into docs/reliability.md")
    o = parser.parse_args(arguments)
    wanted = [(row, mode, point.number) for row in o.rows or BY_ROW for mode in o.mode or MODES
              for point in tell(BY_ROW[row]).points]  # fmt: skip
    lines = gone_through(wanted, o.state / "pairs.jsonl", key_of, swept, o.workers, said)
    if lines is None:
        return 130
    print(table(lines))
    for line in lines:
        for each in line["broken"][:3]:
            print(f"BROKEN {line['row']}: {each}")
    if o.report:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(BLOCK.sub(lambda block: f"{block[1]}{table(lines)}\n{block[2]}", text), encoding="utf-8")
    return int(any(line["broken"] for line in lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
