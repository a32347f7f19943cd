"""How the tests run at once (tests/parallel.py)."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.parallel import MOST, first_uid, pytest_cmdline_main, unit, worker_ports


def config(*args: str, **more: Any) -> Any:
    option = SimpleNamespace(numprocesses=None, tx=[], loadscopereorder=True, capture="fd", keyword="", markexpr="")
    return SimpleNamespace(option=option, args=args, getoption=lambda name, *_: getattr(option, name, False), **more)


def test_a_worker_starts_no_workers() -> None:
    asked = config("tests", workerinput={})
    pytest_cmdline_main(asked)
    assert asked.option.numprocesses is None


@pytest.mark.parametrize("few", ["tests/house", "tests/house/test_house.py", "tests/house/test_house.py::test_x"])
def test_few_files_are_run_without_workers_and_all_with_some(few: str) -> None:
    asked, whole = config(few), config("tests")
    pytest_cmdline_main(asked)
    pytest_cmdline_main(whole)
    assert asked.option.numprocesses == 0
    assert whole.option.numprocesses > 1


def test_no_worker_has_the_ports_or_the_uids_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    uids = []
    for number in range(MOST):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{number}")
        assert seen.isdisjoint(worker_ports())
        seen.update(worker_ports())
        uids.append(first_uid())
    assert uids == sorted(uids)


def test_what_shares_a_world_stays_together_and_nothing_else() -> None:
    assert unit("tests/acceptance/test_node.py::test_x[a::b]") == "tests/acceptance/test_node.py"
    assert unit("tests/house/test_parallel.py::test_x[a::b]") == "tests/house/test_parallel.py::test_x[a::b]"
