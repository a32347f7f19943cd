"""A foreign session locks what a turn writes: that turn waits alone, others go on, the row ends as it must (R03)."""

import asyncio

import pytest

from supervisors.simulation.stories import STORIES, Story
from supervisors.simulation.sweep import wrong
from supervisors.simulation.world import Running, World

BY_ROW = {story.row: story for story in STORIES}
HELD_S = 20


def locked_while_told(story: Story, lock: str) -> World:
    """The world after a story in the middle of which a session held that for a while, and others went on meanwhile."""
    world = World(1, **story.limits, allocation_deadline_ms=60_000)
    story.breaks(world)
    locks = world.database.locks

    async def tell(running: Running) -> None:
        await running.account("acme")
        await running.node("n1")
        allocation = await running.rent("acme", "rent")
        if lock == "row":
            locks.rows.add(("allocation", allocation))
        else:
            locks.lock(lock)
        before, clock = running.state("allocation", allocation), asyncio.get_running_loop().time
        for other in range(HELD_S):
            began = clock()
            await running.account(f"other-{other}")
            assert clock() - began < 1.0
            await asyncio.sleep(1)
        assert running.state("allocation", allocation) == before
        locks.free()
        await story.tell(running)

    assert world.run(tell)
    return world


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["row", "allocations"])
@pytest.mark.parametrize("row", ["R02", "R03", "R04"])
def test_a_turn_whose_row_or_table_is_locked_waits_alone_and_ends_as_its_row_says(row: str, lock: str) -> None:
    assert wrong(BY_ROW[row], locked_while_told(BY_ROW[row], lock)) == []


def test_a_table_that_every_turn_writes_holds_all_of_them_and_loses_none() -> None:
    story = BY_ROW["R02"]
    world = World(1, allocation_deadline_ms=60_000)
    story.breaks(world)

    async def tell(running: Running) -> None:
        await running.account("acme")
        world.database.locks.lock("audit_log")
        commits = len(world.database.commits)
        await asyncio.sleep(HELD_S)
        assert all(not commit.states for commit in world.database.commits[commits:])
        world.database.locks.free()
        await story.tell(running)

    assert world.run(tell)
    assert wrong(story, world) == []
