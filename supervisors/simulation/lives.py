"""Many rentals of random length in one simulated world, ended in every way there is.

By release, by force, by the loss or the restart of the node, and by a release of what is dead already. What the ledger
comes to is for others to reckon.
"""

import asyncio
import random

from adapters.simulated.machines import Machine
from supervisors.simulation.world import Running

SITES, NODES_A_SITE, AT_ONCE = 2, 8, 6
REASONS = ("operator_request", "platform_fault", "")
ENDS = ("release",) * 4 + ("force",) * 3 + ("die",) * 3 + ("reboot",) * 2 + ("release the dead",) * 2
MAX_S = 4.0


class Lives:
    """See above; `seed` makes them the same again."""

    def __init__(self, count: int, seed: int) -> None:
        self._left, self._chance = count, random.Random(seed)  # noqa: S311 - a simulated world's
        self.ended = 0

    async def tell(self, running: Running) -> None:
        """Live them all, some at once."""
        await running.account("acme")
        for site in range(SITES):
            for number in range(NODES_A_SITE):
                await running.node(f"s{site}-{number}", site=f"s{site}")
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(self._lives(running))
        names = list(running.world.machines.machines)
        await running.until(lambda: {running.state("node", name) for name in names} == {"ready"})
        await running.quiet()

    async def _lives(self, running: Running) -> None:
        while self._left:
            self._left -= 1
            await self._one(running, f"life-{self._left}")
            self.ended += 1

    async def _one(self, running: Running, key: str) -> None:
        chance = self._chance
        allocation = await running.rent("acme", key, rate=chance.choice((0, 1, 2_970_000, 10**9, 10**12, 10**13)))
        await running.until(lambda: running.state("allocation", allocation) in ("active", "failed"))
        if running.state("allocation", allocation) == "failed":
            return
        machine = running.world.machine(running.body("allocation", allocation)["node_id"])
        await asyncio.sleep(chance.random() ** 2 * MAX_S)
        await self._end(running, allocation, key, machine)

    async def _end(self, running: Running, allocation: str, key: str, machine: Machine) -> None:
        chance, node_id = self._chance, machine.node_id
        how, reason = chance.choice(ENDS), chance.choice(REASONS) or "of_its_own"
        if how in ("die", "release the dead"):
            machine.up = False
        if how == "reboot":
            machine.boot_id = f"boot-{chance.getrandbits(32)}"
        if how in ("release", "release the dead"):
            await asyncio.sleep(chance.random() if how == "release the dead" else 0)
            await running.release(allocation, f"{key}-release")
        if how == "force":
            await running.force(allocation, f"{key}-force", reason)
        await running.until(lambda: running.state("allocation", allocation) in ("released", "failed"))
        if not machine.up:
            await running.until(lambda: running.state("node", node_id) == "offline")
            machine.up = True
        await running.until(lambda: running.state("node", node_id) == "ready")
        await running.until(lambda: not running.body("allocation", allocation).get("cleanup_pending"))
