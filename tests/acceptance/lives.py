"""One rental of random length on a real runtime that may be killed at any instant, ended in one way of many.

By release, by force, by the loss or the restart of its machine, and by a release of what is dead already. Whoever asks
goes on asking under his key until he is answered.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from adapters.postgres.connect import DRIVER_ERRORS
from tests.acceptance.machine import CUSTOMER_KEY, Machine
from tests.acceptance.world import World
from tests.actors.money.oracle import reckoned

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

    ends: tuple[str, ...] = ENDS
    reasons: tuple[str, ...] = REASONS
    rates: tuple[int, ...] = RATES

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
            "account_id": "acme", "ssh_public_key": CUSTOMER_KEY, "rate_uminor_per_hour": chance.choice(self.rates)
        }  # fmt: skip
        reply = await self._asked("cmd.allocation.request", data, key)
        self.allocation_id = reply["allocation"]["allocation_id"]
        row = await self._allocation_until(lambda row: row["state"] in ("active", "failed"))
        if row["state"] == "active":
            await self._stay()
            await self._end(self._world.machines[row["node_id"]], key)
        self.quiet = self._cut() == before

    async def _stay(self) -> None:
        """The customer works."""
        await asyncio.sleep(self._chance.random() ** 2 * LONGEST_S)

    async def _end(self, machine: Machine, key: str) -> None:
        how = self._chance.choice(self.ends)
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
            more = {"reason_code": self._chance.choice(self.reasons), "reason": "a random life"}
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


async def ledgers_by_the_book(world: World) -> dict[str, dict[str, Any]]:
    """Every meter's entries are those of the contract's arithmetic; the meters by allocation."""
    meters = {meter["allocation_id"]: meter for meter in await world.rows("SELECT * FROM public_v1.meter")}
    told_of = await _evaluations(world)
    for meter in meters.values():
        entries = await world.rows("SELECT * FROM public_v1.ledger_entry WHERE meter_id = $1", meter["meter_id"])
        found = {entry["idempotency_key"]: entry["amount_minor"] for entry in entries}
        assert found == reckoned(meter, told_of[f"meter:{meter['meter_id']}"], world.window_us), meter
    return meters


async def _evaluations(world: World) -> dict[str, list[dict[str, Any]]]:
    query = """SELECT target_ref, details FROM public_v1.audit_log WHERE action = 'billing.credit.evaluated'
               ORDER BY seq"""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in await world.rows(query):
        details = row["details"]
        found.setdefault(row["target_ref"], []).append(json.loads(details) if isinstance(details, str) else details)
    return found
