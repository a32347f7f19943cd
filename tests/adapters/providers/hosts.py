"""A storage host's directories and its clock."""

from pathlib import Path

import pytest

from adapters.storage.directories import Directories

NOW_US = 1_700_000_000_000_000


class Clock:
    now_us = NOW_US

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    (tmp_path / "srv" / "data").mkdir(parents=True)
    return Directories(tmp_path / "srv")
