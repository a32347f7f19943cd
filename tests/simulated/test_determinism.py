"""The same seed gives the same turns, bit for bit: twice in one process, and under another hash seed."""

import os
import subprocess
import sys

import pytest

from supervisors.simulation.stories import STORIES, Story
from tests.simulated.sweep import tell

PROGRAM = "from tests.simulated.test_determinism import digests; print(*digests())"


def digests(crash_at: int = 20) -> list[str]:
    """The heads of all stories' digest chains, each with a crash in it."""
    return [tell(story, crash_at, "lost").world.database.head.digest for story in STORIES]


def test_a_seed_decides_everything() -> None:
    first = digests()
    assert digests() == first
    assert len(set(first)) == len(STORIES)


@pytest.mark.parametrize("story", STORIES[:1], ids=lambda story: story.row)
def test_another_seed_decides_otherwise(story: Story) -> None:
    assert tell(story, seed=2).world.database.head != tell(story, seed=1).world.database.head


def test_nothing_depends_on_the_hash_seed() -> None:
    mine = " ".join(digests())
    for seed in ("1", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        other = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=env)
        assert other.stdout.strip() == mine
