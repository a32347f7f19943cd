"""`./run campaign races`: every schedule of each race with so many deviations; what is broken is named, to be replayed.

The ledger `DIR/races.jsonl` has a line for each part of a race that has ended; parts that are there are not run again.
"""

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from supervisors.simulation.races import Explored, explore, run
from supervisors.simulation.rivals import BY_NAME
from supervisors.simulation.sweep import unsound
from tools.ledger import Line, gone_through
from tools.version import commit

PAGE: Final = Path(__file__).parents[1] / "docs" / "reliability.md"
BLOCK: Final = re.compile(r"(<!-- races -->\n).*?(<!-- /races -->)", re.DOTALL)
PARTS: Final = 16
Part = tuple[str, int, int]  # race, deviations, number


def explored(part: Part) -> Line:
    """A part of a race, as a line of the ledger."""
    name, deviations, number = part
    found = explore(BY_NAME[name], deviations, unsound, number, PARTS)
    return {**msgspec.to_builtins(found), "part": number, "commit": commit()}


def key_of(line: Line) -> Part | None:
    """Whose line it is, None for another commit's."""
    return (line["race"], line["deviations"], line["part"]) if line["commit"] == commit() else None


def said(line: Line) -> str:
    """In a word."""
    return f"{line['race']}, part {line['part']}: {len(line['broken'])} of {line['runs']} broken"


def all_of(names: Sequence[str], deviations: int, workers: int, file: Path) -> list[Line] | None:
    """What the parts came to, in their order; None if it was interrupted."""
    wanted = [(name, deviations, part) for name in names for part in range(PARTS)]
    return gone_through(wanted, file, key_of, explored, workers, said)


def joined(lines: Sequence[Line]) -> list[Explored]:
    """By race; the schedule without deviations is in each part, and counts once."""
    found: dict[str, Explored] = {}
    for line in lines:
        part = msgspec.convert({name: line[name] for name in Explored.__struct_fields__}, Explored)
        if (whole := found.get(part.race)) is None:
            found[part.race] = part
            continue
        whole.runs += part.runs - 1
        whole.vain += part.vain
        whole.broken += [each for each in part.broken if each.schedule]
    return list(found.values())


def table(found: Sequence[Explored]) -> str:
    """As Markdown."""
    runs, broken = sum(each.runs for each in found), sum(len(each.broken) for each in found)
    lines = [f"{runs} schedules with up to {found[0].deviations} deviations, {broken} of them broken.", ""]
    lines += ["| race | choices | schedules | overtaken by nobody |", "|---|---|---|---|"]
    lines += [f"| {each.race} | {each.choices} | {each.runs} | {each.vain} |" for each in found]
    return "\n".join(lines)


def replayed(name: str, schedule: tuple[int, ...]) -> int:
    """One schedule, call by call."""
    choices, wrong = run(BY_NAME[name], schedule, unsound)
    for choice in choices:
        print(f"{choice.number:4} {'HELD' if choice.number in schedule else '    '} {choice.what}")
    for what in wrong:
        print(f"BROKEN {what}")
    return int(bool(wrong))


def main(arguments: Sequence[str]) -> int:
    """0 if nothing is broken."""
    parser = argparse.ArgumentParser(prog="./run campaign races", description="bounded exhaustive reordering")
    parser.add_argument("--race", choices=tuple(BY_NAME), action="append", help="only these")
    parser.add_argument("--deviations", type=int, default=3, help="calls that are held back in one schedule, at most")
    parser.add_argument("--schedule", help="replay one: the numbers of what is held back, with commas")
    parser.add_argument("--state", type=Path, default=Path(".campaign"), metavar="DIR", help="where the ledger is")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes side by side")
    parser.add_argument("--report", action="store_true", help="write the table into docs/reliability.md")
    o = parser.parse_args(arguments)
    if o.schedule is not None:
        if not o.race:
            parser.error("--schedule: of which race? name it with --race")
        logging.disable(logging.CRITICAL)
        return replayed(o.race[0], tuple(sorted(int(number) for number in o.schedule.split(",") if number)))
    lines = all_of(o.race or tuple(BY_NAME), o.deviations, o.workers, o.state / "races.jsonl")
    if lines is None:
        return 130
    found = joined(lines)
    print(table(found))
    for each in found:
        for broken in each.broken[:5]:
            numbers = ",".join(map(str, broken.schedule))
            print(f"BROKEN {broken.what}\n  held back: {'; '.join(broken.held)}\n"
                  f"  again: ./run campaign races --race '{each.race}' --schedule {numbers!r}")  # fmt: skip
    if o.report:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(BLOCK.sub(lambda block: f"{block[1]}{table(found)}\n{block[2]}", text), encoding="utf-8")
    return int(any(each.broken for each in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
