"""How the tests run at once: how many workers, what stays together, what begins first, which ports and uids are whose.

Hooks of pytest and pytest-xdist; `tests/conftest.py` takes them in.
"""

import gc
import os
import random
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

FILES_PER_WORKER = 8  # to start a worker takes seconds: fewer files are sooner done without one
PORTS = range(10_000, 20_000)  # below those that a runtime chooses from
PORTS_EACH = 500
MOST = len(PORTS) // PORTS_EACH  # workers that have ports of their own
UIDS = range(20_000, 60_000)
UIDS_EACH = 1_000
SHARED = re.compile(r'\bscope="module"|loop_scope="module"')


def worker() -> int:
    """The number of this worker from 0; 0 as well where there are none."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def worker_ports() -> range:
    """The ports of this worker: a server that is down for a moment finds its own again."""
    first = PORTS.start + worker() * PORTS_EACH % len(PORTS)
    return range(first, first + PORTS_EACH)


def first_uid() -> int:
    """Above it a real machine's memory of its own gives uids: a step ends every process with its customer's uid."""
    return UIDS.start + worker() * UIDS_EACH % len(UIDS) + random.randrange(UIDS_EACH // 2)


@cache
def shares(file: str) -> bool:
    """Whether the tests of a file share something, so that they belong to one worker."""
    path = Path(file)
    return path.is_file() and SHARED.search(path.read_text(encoding="utf-8")) is not None


def unit(nodeid: str) -> str:
    """What stays together: a file whose tests share something, else the test."""
    file = nodeid.partition("::")[0]
    return file if shares(file) else nodeid


class Units(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a worker that is nearly idle the next unit, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)

    def remove_node(self, node: Any) -> str | None:
        """A worker has ended: what it left goes to the others, but for the test in which it crashed."""
        left = self.assigned_work.pop(node)
        crashed: str | None = next((name for tests in left.values() for name, done in tests.items() if not done), None)
        if crashed is None:
            return None
        left[unit(crashed)][crashed] = True
        self.workqueue.update({scope: tests for scope, tests in left.items() if not all(tests.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed


def _files(config: pytest.Config) -> int:
    """How many test files are asked for; 0 when the tests were chosen one by one, or are to be looked at."""
    chosen = ("collectonly", "usepdb", "keyword", "lf", "failedfirst", "stepwise")
    if any(config.getoption(name, False) for name in chosen) or config.getoption("capture") == "no":
        return 0
    paths = [Path(argument) for argument in config.args]
    if not all(path.is_dir() or path.is_file() for path in paths):
        return 0
    return sum(len(list(path.rglob("test_*.py"))) if path.is_dir() else 1 for path in paths)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Without -n the workers are as many as what is asked for deserves; with it as many as it says."""
    if hasattr(config, "workerinput"):
        return  # a worker, which is asked this as well, starts none
    option = config.option
    if getattr(option, "numprocesses", 0) is None and not option.tx:
        cores = len(os.sched_getaffinity(0))
        most = cores if option.markexpr == "fast" else cores + 2  # the fast ones compute, the others mostly wait
        wanted = min(most, MOST, _files(config) // FILES_PER_WORKER)
        option.numprocesses = wanted if wanted > 1 else 0
    option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """-n auto: the tests mostly wait."""
    return min(MOST, len(os.sched_getaffinity(0)) + 2)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Units | None:
    """Ours, unless --dist asks for another."""
    return Units(config, log) if config.getvalue("dist") == "load" else None


def pytest_sessionstart(session: pytest.Session) -> None:
    """Servers that a test starts choose among the worker's ports."""
    from adapters.embedded import ports  # not above: what imports this module is still fast

    own = worker_ports()
    ports.LOWEST, ports.HIGHEST, ports.ENOUGH = own.start, own.stop - 1, 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Among several workers what takes long begins first, so that nothing long runs alone at the end."""
    if hasattr(config, "workerinput"):
        sizes = Counter(unit(item.nodeid) for item in items)
        items.sort(key=lambda item: (_tier(item), -sizes[unit(item.nodeid)]))


def pytest_collection_finish() -> None:
    """What is loaded now stays to the end: the collector of garbage need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 50)  # as in a runtime (`supervisors/boot/collector.py`), whose work tests do


def _tier(item: pytest.Item) -> int:
    """0 for what is known to be slow, 1 for whole runtimes, 2 for the rest."""
    if item.get_closest_marker("slow"):
        return 0
    return 1 if "acceptance" in item.path.parts else 2
