"""`python -m tools.planted.one NAME [--sound]`: plant one bug in this process, run its check, say what caught it.

The last line is JSON: the names that the check gave, and the processor seconds. `--sound`: the check without the bug.
"""

import json
import logging
import os
import resource
import sys
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any, Final

from tools.planted.bugs import ROOT, Bug, Sweep
from tools.planted.overlay import plant
from tools.planted.table import BUGS

BROKEN_CODE: Final = ("NameError", "ImportError", "ModuleNotFoundError", "SyntaxError", "UnboundLocalError")


def swept(sweep: Sweep, expected: str) -> list[str]:
    """What a row's sweep finds; it ends with the first end of the story that shows what is expected."""
    telling = import_module("supervisors.simulation.sweep")  # not above: what is planted comes before it
    stories = import_module("supervisors.simulation.stories").STORIES
    story = next(story for story in stories if story.row == sweep.row)
    found: dict[str, None] = {}

    def seen(number: int, mode: str) -> list[Any]:
        try:
            told = telling.tell(story, number, mode)
        except Exception as error:  # it never ends, or ends by an error
            if type(error).__name__ in BROKEN_CODE:
                raise
            found[f"L1: {str(error)[:120]}"] = None
            return []
        for each in telling.wrong(story, told.world):
            found[f"{each.name}: {each.ref}: {each.what}"[:160]] = None
        return list(told.points)

    def done() -> bool:
        return any(each.startswith(f"{expected}:") for each in found)

    points = seen(0, "before")
    for mode in sweep.modes:
        for point in points:
            if done():
                return list(found)
            if sweep.at in point.what:
                seen(point.number, mode)
    return list(found)


def tested(node: str) -> list[str]:
    """The names of the tests that fail by what they assert."""
    pytest = import_module("pytest")
    failed: list[str] = []

    class Watch:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed and report.when == "call":
                crash = getattr(report.longrepr, "reprcrash", None)
                said = str(getattr(crash, "message", report.longrepr))[:160]
                if not said.startswith(BROKEN_CODE):
                    failed.append(f"{report.nodeid.rpartition('::')[2].partition('[')[0]}: {said}")

    options = ["-q", "-x", "-n0", "-p", "no:cacheprovider", "--no-header", f"--rootdir={ROOT}"]
    ended = pytest.main([*options, node], plugins=[Watch()])
    if ended not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"{node}: pytest ended with {ended!r}")
    return failed


def run(bug: Bug, *, sound: bool) -> dict[str, Any]:
    """The check of a bug, with it or without."""
    planter = None if sound else plant(bug)
    check = bug.check
    found = swept(check, bug.expected) if isinstance(check, Sweep) else tested(check.node)
    if planter is not None and not planter.planted:
        raise RuntimeError(f"{bug.name}: its check never imports {bug.file}")
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "name": bug.name, "found": found, "seconds": round(sum(each.ru_utime + each.ru_stime for each in used), 2),
        "caught": any(each.startswith(f"{bug.expected}:") for each in found),
    }  # fmt: skip


def main(arguments: list[str]) -> None:
    """See above."""
    logging.disable(logging.CRITICAL)
    os.chdir(ROOT)
    with redirect_stdout(sys.stderr):  # what a test says is no answer
        said = run(BUGS[arguments[0]], sound="--sound" in arguments)
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
