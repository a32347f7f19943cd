"""Every built row, every point of its story, dying before it, with its reply lost, and after it (reliability.md)."""

import random
from collections import Counter

import pytest

from adapters.simulated.journal import Database
from amends.ports.journal import Commit
from supervisors.invariants import committed
from supervisors.invariants.records import Violation
from supervisors.matrix import ROWS
from supervisors.simulation.checks import records_of
from supervisors.simulation.points import MODES
from supervisors.simulation.stories import STORIES, Story
from supervisors.simulation.sweep import tell, wrong
from tests.proof import AGAIN, CRASHES, counted
from tools import crash_points

BUILT = [row.id for row in ROWS if row.status == "built"]
BY_ROW = [pytest.param(story, id=story.row) for story in STORIES]


def test_every_built_row_has_its_story() -> None:
    assert [story.row for story in STORIES] == BUILT


@pytest.mark.parametrize("story", BY_ROW)
def test_a_story_without_a_crash_ends_as_its_row_says(story: Story) -> None:
    told = tell(story)
    assert wrong(story, told.world) == []


@pytest.mark.parametrize("story", BY_ROW)
def test_nothing_is_wrong_at_any_committed_instant(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = Database.write, list[list[Violation]]()

    def write(self: Database, commit: Commit) -> None:
        real(self, commit)
        seen.append(committed(records_of(self)))

    monkeypatch.setattr(Database, "write", write)
    tell(story, 30, "lost")
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("story", BY_ROW)
def test_a_crash_at_some_points_for_those_in_a_hurry(story: Story) -> None:
    chance = random.Random(11)
    for point in chance.sample(tell(story).points, 12):
        told = tell(story, point.number, chance.choice(MODES))
        assert wrong(story, told.world) == [], f"{story.row}, died at {point}"


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("story", BY_ROW)
def test_a_crash_at_any_point_changes_nothing_of_the_end(story: Story, mode: str) -> None:
    points = tell(story).points
    died = Counter[str]()
    for point in points:
        told = tell(story, point.number, mode)
        assert told.crashed == point, f"the sweep never came to {point}"
        assert wrong(story, told.world) == [], f"{story.row}, died {mode} {point}"
        died[point.what.partition(" ")[0]] += 1
    counted[CRASHES] += len(points)
    assert sum(died.values()) == len(points)
    assert {"read", "commit", "publish", *(["ssh.user-create"] if story.state else [])} <= set(died)


@pytest.mark.slow
@pytest.mark.parametrize("story", BY_ROW)
def test_a_crash_in_the_recovery_from_a_crash_changes_nothing_either(story: Story) -> None:
    chance = random.Random(7)
    points = tell(story).points
    for _ in range(50):
        counted[AGAIN] += 1
        first, again, mode = chance.choice(points), chance.randrange(1, len(points)), chance.choice(MODES)
        told = tell(story, first.number, mode, again)
        assert wrong(story, told.world) == [], f"{story.row}, died {mode} {first} and at {again} of the recovery"


def test_the_page_has_the_points_that_are_swept() -> None:
    assert crash_points.PAGE.read_text(encoding="utf-8") == crash_points.page()
    for number, story in enumerate(STORIES):
        assert len(crash_points.points_of(number)) * len(MODES) >= 100, story.row
