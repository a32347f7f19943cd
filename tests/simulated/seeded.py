"""Digests of all turns of seeded worlds: what must be the same wherever it is computed. Needs msgspec alone."""

import asyncio

from supervisors.simulation.pair import Pair
from supervisors.simulation.stories import STORIES
from supervisors.simulation.sweep import tell
from supervisors.simulation.world import Running, World

NODES = 6


async def fleet(running: Running) -> None:
    """Several of everything at once, so that an order that nobody has chosen would show."""

    async def rented(number: int) -> None:
        await running.node(f"n{number}")
        allocation = await running.rent("acme", f"rent-{number}")
        await running.until(lambda: running.state("allocation", allocation) in ("active", "failed", "released"))
        if number % 2:
            await running.release(allocation, f"release-{number}")

    await running.account("acme")
    await asyncio.gather(*(rented(number) for number in range(NODES)))
    await running.quiet()
    for machine in running.world.machines.machines.values():
        machine.beats = False
    await asyncio.sleep(3)


def of_many() -> str:
    """The digest of a fleet's turns, one of its machines broken."""
    world = World(1)
    world.machine("n2").break_next("key-install", "fail", 99)
    assert world.run(fleet)
    return world.database.head.digest


def of_two_runtimes() -> str:
    """The digest of a story in which a standby takes over from a leader that is paused."""
    world = World(1)
    with Pair(world, STORIES[0].tell, seed=3) as pair:
        pair.run_for(1)
        pair.leader.loop.pause()
        pair.run(lambda: pair.standby.told)
    return world.database.head.digest


def digests(crash_at: int = 20) -> list[str]:
    """The heads of all stories' digest chains, each with a crash in it, of a fleet's and of two runtimes'."""
    told = [tell(story, crash_at, "lost").world.database.head.digest for story in STORIES]
    return [*told, of_many(), of_two_runtimes()]
