"""Figures of a run of the tests: how much of what was tried. Said at the end, kept in `.proof/tests.json`.

A test says `record_property(CRASHES, 204)` of what it has counted itself; kills and examples are counted for it.
Hooks of pytest; `tests/conftest.py` takes them in.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

FILE: Final = Path(__file__).parents[1] / ".proof" / "tests.json"
CRASHES: Final = "crash points died at"
AGAIN: Final = "crashes in a recovery from one"
SCHEDULES: Final = "schedules of races, one deviation"
KILLS: Final = "runtimes killed"
CUTS: Final = "faults of connections by the proxy"
SIMULATED_LIVES: Final = "random lives equal to the oracle, simulated"
REAL_LIVES: Final = "random lives equal to the oracle, on real parts"
EXAMPLES: Final = "examples by hypothesis"
PLANTED: Final = "planted bugs caught"
NAMES: Final = (CRASHES, AGAIN, SCHEDULES, KILLS, CUTS, SIMULATED_LIVES, REAL_LIVES, EXAMPLES, PLANTED)
_PASSING: Final = re.compile(r"(\d+) passing")

counted: Final[Counter[str]] = Counter()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """Examples that a test by hypothesis was told are noted by its plugin, which ends outside of this."""
    before = dict(counted)
    try:
        return (yield)
    finally:
        item.user_properties += [(name, count - before.get(name, 0)) for name, count in counted.items()
                                 if count != before.get(name, 0)]  # fmt: skip


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """What hypothesis says of the test that has ended."""
    examples = sum(map(int, _PASSING.findall(getattr(item, "hypothesis_statistics", ""))))
    if examples:
        item.user_properties.append((EXAMPLES, examples))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where they are kept, of a run that is not the tests'."""
    parser.addoption("--figures", type=Path, default=FILE, metavar="FILE", help="where the figures of the run are kept")


class Figures:
    """Of the whole run, in the process that has the workers."""

    def __init__(self, file: Path) -> None:
        self.found: Counter[str] = Counter()
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Each test's, once."""
        if report.when == "teardown":
            for name, value in report.user_properties:
                if name in NAMES and isinstance(value, int):
                    self.found[name] += value

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say them."""
        if not self.found:
            return
        passed = len(terminalreporter.getreports("passed"))
        said = {"tests passed": passed, **{name: self.found[name] for name in NAMES if name in self.found}}
        terminalreporter.section("what was tried")
        for name, count in said.items():
            terminalreporter.write_line(f"{count:8} {name}")
        self._file.parent.mkdir(exist_ok=True)
        self._file.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    """Only where reports come together."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Figures(config.option.figures), "amends-figures")
