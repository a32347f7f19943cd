"""`./run campaign planted [NAME…]`: plant each bug in a process of its own, two at a time, and say what caught it.

Without names it is all of them, and first each check without a bug, which must hold. `--number N`: only the N-th part,
of eight or nine, that CI would take for such a commit. `--report` writes the table of docs/reliability.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from msgspec import Struct

from tools.planted.bugs import ROOT, Bug
from tools.planted.table import BUGS
from tools.version import commit

PAGE: Final = ROOT / "docs" / "reliability.md"
BLOCK: Final = re.compile(r"(<!-- planted -->\n).*?(<!-- /planted -->)", re.DOTALL)
PART: Final = 8
AT_ONCE: Final = 2
PATIENCE_S: Final = 300.0  # a check that hangs has caught nothing by name
NUMBER: Final = "AMENDS_TEST_PLANTED"


class Result(Struct, frozen=True):
    """What became of a check. `trouble`: why it came to no answer at all."""

    bug: Bug
    caught: bool = False
    found: list[str] = []
    seconds: float = 0.0
    trouble: str = ""

    @property
    def shown(self) -> str:
        """For who watches: a line."""
        return f"{self.bug.name}: {self.trouble or self.found or 'nothing is found'}"[:160]

    @property
    def said(self) -> str:
        """For who must see to it."""
        return f"{self.bug.name}: {self.trouble or self.found or 'nothing is found'}, not {self.bug.expected}"


def check(bug: Bug, *options: str) -> Result:
    """Run one bug's check in a process of its own."""
    command = [sys.executable, "-m", "tools.planted.one", bug.name, *options]
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return Result(bug, trouble=f"no end within {PATIENCE_S:g} s")
    if ended.returncode:
        return Result(bug, trouble=ended.stderr[-2000:])
    said = json.loads(ended.stdout.splitlines()[-1])
    return Result(bug, said["caught"], said["found"], said["seconds"])


def checked(bugs: Iterable[Bug], *options: str) -> Iterator[Result]:
    """The results, in the order of the bugs."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda bug: check(bug, *options), bugs)


def number(environ: Callable[[str], str | None] = os.environ.get, root: Path = ROOT) -> int:
    """Which part is due: what the environment says, else of this commit, else of this day."""
    wanted = environ(NUMBER)
    if wanted:
        return int(wanted)
    known = commit(root)
    return int(known[:8], 16) if known else int(time.time() // 86_400)


def part(of: int) -> list[Bug]:
    """The bugs of a number: eight or nine from all over the table; as many numbers in a row have them all."""
    parts = len(BUGS) // PART
    return list(BUGS.values())[of % parts :: parts]


def table(results: list[Result]) -> str:
    """The page's part."""
    caught, seconds = sum(each.caught for each in results), sum(each.seconds for each in results)
    lines = [f"{caught} of {len(results)} are caught by name; {seconds:.0f} s of one core.", ""]
    lines += ["| bug | breaks | in | caught by | repeat |", "|---|---|---|---|---|"]
    for each in results:
        bug = each.bug
        by = f"`{bug.expected}`" if each.caught else "**nothing**"
        lines.append(f"| {bug.name} | {bug.invariant} | `{bug.file}` | {by} | `{bug.check.command}` |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """0 if every bug was caught, and every check holds without one."""
    parser = argparse.ArgumentParser(prog="./run campaign planted", description="bugs planted on purpose")
    parser.add_argument("names", nargs="*", metavar="NAME", help="bugs; all of them without any")
    parser.add_argument("--number", type=int, help="only the part of this number")
    parser.add_argument("--report", action="store_true", help="write the table into docs/reliability.md")
    o = parser.parse_args(arguments)
    bugs = part(o.number) if o.number is not None else [BUGS[name] for name in o.names] or list(BUGS.values())
    unsound = []
    for each in checked({bug.check: bug for bug in bugs}.values(), "--sound"):
        if each.found or each.trouble:
            unsound.append(each)
            print(f"NOT SOUND without a bug: {each.said}", flush=True)
    results = []
    for each in checked(bugs):
        results.append(each)
        print(f"{'caught' if each.caught else 'NOT CAUGHT'} {each.seconds:6.1f} s  {each.shown}", flush=True)
    missed = [each for each in results if not each.caught]
    print(f"{len(results) - len(missed)} of {len(results)} caught, {sum(each.seconds for each in results):.0f} s")
    if o.report:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(BLOCK.sub(lambda found: f"{found[1]}{table(results)}\n{found[2]}", text), encoding="utf-8")
    return int(bool(missed or unsound))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
