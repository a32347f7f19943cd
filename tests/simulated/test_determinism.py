"""The same seed gives the same turns, bit for bit: twice, under another hash seed, and on other interpreters."""

import os
import subprocess
import sys

import pytest

from supervisors.simulation.stories import STORIES, Story
from supervisors.simulation.sweep import tell
from tests.simulated.seeded import digests
from tools.interpreters import ASK, prepared


def said_by(python: str, **env: str) -> list[str]:
    """The same as told by another process."""
    environ = {**os.environ, "PYTHONPATH": "src:.", **env}
    other = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=False, env=environ)
    assert other.returncode == 0, other.stderr
    return other.stdout.split()


def test_a_seed_decides_everything() -> None:
    first = digests()
    assert digests() == first
    assert len(set(first)) == len(first) == len(STORIES) + 2


@pytest.mark.parametrize("story", STORIES[:1], ids=lambda story: story.row)
def test_another_seed_decides_otherwise(story: Story) -> None:
    assert tell(story, seed=2).world.database.head != tell(story, seed=1).world.database.head


@pytest.mark.parametrize("seed", ["1", "4711"])
def test_nothing_depends_on_the_hash_seed(seed: str) -> None:
    assert said_by(sys.executable, PYTHONHASHSEED=seed) == digests()


@pytest.mark.slow
@pytest.mark.parametrize("python", [sys.executable, *prepared()])
def test_nothing_depends_on_the_interpreter(python: str) -> None:
    assert said_by(python) == digests()
