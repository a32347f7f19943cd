"""State directories that another account can enter (pytest's own are closed), removed afterwards."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """An empty state directory below /tmp, its path with a space."""
    base = Path(tempfile.mkdtemp(prefix="amends test ", dir="/tmp"))
    base.chmod(0o755)
    yield base / "state"
    shutil.rmtree(base)
