"""One rental of random length on a real runtime that may be killed at any instant, ended in one way of many.

By release, by force, by the loss or the restart of its machine, and by a release of what is dead already. Whoever asks
goes on asking under his key until he is answered.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from adapters.postgres.connect import DRIVER_ERRORS
from tests.acceptance.machine import CUSTOMER_KEY, Machine
from tests.acceptance.world import World

ENDS = ("release",) * 4 + ("force",) * 3 + ("die",) * 3 + ("reboot",) * 2 + ("release the dead", "force the dead")
REASONS = ("operator_request", "platform_fault", "of_its_own")
RATES = (0, 1, 2_970_000, 10**9, 10**12, 10**13)
LONGEST_S = 4.0
PATIENCE_S = 120.0  # through all the kills, however long a busy machine takes for its restarts


class Eyes:
    """The test's one session, for many who look at once."""

    def __init__(self, world: World) -> None:
        self._world, self._turn = world, asyncio.Lock()

    async def row(self, query: str, name: str) -> dict[str, Any]:
        """The only row of a query; waits while there is no database to ask."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                async with self._turn:
                    return await self._world.one(query, name)
            except DRIVER_ERRORS:
                assert time.monotonic() < deadline, "the database does not come back"
                await asyncio.sleep(0.05)


class Life:
    """See above. `cut`: how often the runtime was killed so far."""

    def __init__(self, world: World, eyes: Eyes, chance: random.Random, cut: Callable[[], int]) -> None:
        self._world, self._eyes, self._chance, self._cut = world, eyes, chance, cut
        self.allocation_id = ""
        self.died_us = 0  # when its machine fell silent; 0: it did not
        self.heard_us = 0  # when its last heartbeat had surely been read, however busy all are: stamps are of then
        self.quiet = False  # whether the runtime lived through all of it

    async def live(self, key: str) -> None:
        """From the request until its machine is ready for the next."""
        chance, before = self._chance, self._cut()
        data = {
            "account_id": "acme", "ssh_public_key": CUSTOMER_KEY, "rate_uminor_per_hour": chance.choice(RATES)
        }  # fmt: skip
        reply = await self._asked("cmd.allocation.request", data, key)
        self.allocation_id = reply["allocation"]["allocation_id"]
        row = await self._allocation_until(lambda row: row["state"] in ("active", "failed"))
        if row["state"] == "active":
            await asyncio.sleep(chance.random() ** 2 * LONGEST_S)
            await self._end(self._world.machines[row["node_id"]], key)
        self.quiet = self._cut() == before

    async def _end(self, machine: Machine, key: str) -> None:
        how = self._chance.choice(ENDS)
        if how in ("die", "release the dead", "force the dead"):
            machine.beating = False
            await self._world.all_sent()  # a heartbeat that has yet to leave would be one of after its death
            self.died_us = time.time_ns() // 1000
            await machine.ssh.stop()
            self.heard_us = await self._all_read()
        if how == "reboot":
            machine.boot_id = f"boot-{self._chance.getrandbits(32)}"
        if how.endswith("the dead"):
            await asyncio.sleep(self._chance.random())
        named = {"allocation_id": self.allocation_id}
        if how.startswith("release"):
            await self._asked("cmd.allocation.release", named, f"{key}-release")
        if how.startswith("force"):
            more = {"reason_code": self._chance.choice(REASONS), "reason": "a random life"}
            await self._asked("ops.allocation.force_release", named | more, f"{key}-force")
        await self._allocation_until(lambda row: row["state"] in ("released", "failed"))
        if not machine.beating:
            await self._node_is(machine, "offline")
            await machine.ssh.start()
            machine.beating = True
        await self._node_is(machine, "ready")
        await self._allocation_until(lambda row: not row["cleanup_pending"])

    async def _all_read(self) -> int:
        """Until when the runtime has read what had reached it: it has answered a question that came later.

        Of one that was killed meanwhile nothing is read any more.
        """
        before, now_us = self._cut(), time.time_ns() // 1000
        await self._asked("qry.allocation.get", {"id": self.allocation_id}, "")
        return time.time_ns() // 1000 if self._cut() == before else now_us

    async def _asked(self, subject: str, data: dict[str, Any], key: str) -> dict[str, Any]:
        reply = await self._world.ask_until(subject, data, key=key, timeout_s=PATIENCE_S)
        assert reply["ok"], reply
        found: dict[str, Any] = reply["data"]
        return found

    async def _node_is(self, machine: Machine, state: str) -> None:
        query = "SELECT * FROM public_v1.node WHERE node_id = $1"
        await self._until(lambda row: bool(row["state"] == state), state, query, machine.node_id)

    async def _allocation_until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        query = "SELECT * FROM public_v1.allocation WHERE allocation_id = $1"
        return await self._until(wanted, "further", query, self.allocation_id)

    async def _until(
        self, wanted: Callable[[dict[str, Any]], bool], what: str, query: str, name: str
    ) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while not wanted(row := await self._eyes.row(query, name)):
            assert time.monotonic() < deadline, f"{name} is not {what}: {row}"
            await asyncio.sleep(0.05)
        return row


async def killed_at_random(
    world: World, times: int, chance: random.Random, told: Callable[[], Awaitable[None]]
) -> None:
    """Kill the runtime that often, some seconds apart, and start it again each time."""
    for _ in range(times):
        await asyncio.sleep(1 + chance.random() * 3)
        world.kill()
        await told()
        await world.restart()
