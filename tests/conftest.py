"""State directories that another account can enter (pytest's own are closed), removed afterwards."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import profiles
from tests.directories import scratch
from tests.fast import fast_means_no_server, pytest_itemcollected
from tests.parallel import (
    pytest_cmdline_main,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_sessionstart,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)
from tests.proof import pytest_addoption, pytest_configure, pytest_runtest_call, pytest_runtest_teardown

pytest_plugins = ["tests.adapters.postgres.database"]

__all__ = [
    "fast_means_no_server",
    "profiles",
    "pytest_addoption",
    "pytest_cmdline_main",
    "pytest_collection_finish",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_itemcollected",
    "pytest_runtest_call",
    "pytest_runtest_teardown",
    "pytest_sessionstart",
    "pytest_xdist_auto_num_workers",
    "pytest_xdist_make_scheduler",
]


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """An empty state directory below /tmp, its path with a space."""
    base = scratch("amends test ")
    yield base / "state"
    shutil.rmtree(base)
