"""R01 over restarts: a runtime that may not make streams leaves it to an operator; its run goes on after a kill."""

from pathlib import Path
from typing import Any

from tests.acceptance.records import all_is_well, ended_run, events, runs
from tests.acceptance.world import EVENTS, NOTIFICATIONS, World, until


async def attempts(world: World, entity: str) -> int:
    """How often the oldest event of the entity was really published."""
    query = "SELECT attempts FROM public_v1.outbox WHERE entity = $1 ORDER BY outbox_id LIMIT 1"
    found: int = (await world.rows(query, entity))[0]["attempts"]
    return found


async def test_without_leave_to_make_streams_it_waits_for_an_operator_over_kills(state_dir: Path) -> None:
    async with World(state_dir, '[nats]\nauto_create_streams = "never"\n').running() as world:
        # given a runtime that has found no stream and may make none
        name = await world.account("acme")
        entity = f"account:{name}"
        assert [await world.has_stream(each) for each in (EVENTS, NOTIFICATIONS)] == [False, False]

        async def tried() -> bool:
            return await attempts(world, entity) >= 2

        await until(tried, "its event was tried")
        row = await world.one("SELECT * FROM public_v1.outbox WHERE entity = $1", entity)
        (before,) = await runs(world, f"outbox:{row['outbox_id']}", "R01")
        known = await attempts(world, entity)
        # when it is killed and comes back, then it goes on trying, in the same run, and still makes no stream
        world.kill()
        await world.restart()

        async def tried_again() -> bool:
            return await attempts(world, entity) > known

        await until(tried_again, "its event was tried again")
        waiting = [await world.account() for _ in range(5)]
        assert not await world.has_stream(EVENTS)
        (after,) = await runs(world, f"outbox:{row['outbox_id']}", "R01")
        assert after.row["recovery_id"] == before.row["recovery_id"]
        # when an operator has them made, then everything goes out, once
        await world.ok("ops.streams.create", {"reason": "first day"})
        for each in [name, *waiting]:
            assert await events(world, f"account:{each}") == ["open"]
        run = await ended_run(world, f"outbox:{row['outbox_id']}", "R01")
        assert run.shape() == [f"compensate·external_call·outbox:{row['outbox_id']}·success"]
        assert run.compensations[0]["metadata"]["released"] >= len(waiting)
        await _once(world)
        await all_is_well(world)


async def _once(world: World) -> None:
    stored: list[Any] = [message["msg_id"] for message in await world.stored(EVENTS)]
    assert len(stored) == len(set(stored))
