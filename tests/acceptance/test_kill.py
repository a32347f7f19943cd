"""SIGKILL at random moments under load: whoever rents gets what was promised, and nothing is lost, doubled or stuck."""

import asyncio
import logging
import os
import random
import secrets
import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.aftermath import (
    no_event_is_doubled_or_lost,
    nobody_is_left,
    nothing_is_left_under_way,
    the_records_are_whole,
)
from tests.acceptance.machine import CUSTOMER_KEY, Machine
from tests.acceptance.world import RATE, World, until

log = logging.getLogger(__name__)
KILLS = 30
CONVERGES_WITHIN_S = 240  # through all the kills, however long the machine takes for its restarts
MACHINES = 5
ENDED = ("released", "failed")
OPS = ("user-create", "key-install", "user-lock", "user-remove")
FAULTS: list[dict[str, Any]] = [
    {"kind": "exit"},
    {"kind": "exit", "exit_status": 74},
    {"kind": "drop_before"},
    {"kind": "drop_after"},
    {"kind": "no_exit_status"},
    {"kind": "delay", "seconds": 0.3},
    {"kind": "hang"},
]


class Customer:
    """Rents, stays a little, releases, again and again; asks under one key until he is answered."""

    def __init__(self, world: World, machine: Machine, chance: random.Random) -> None:
        self.world, self.machine, self.chance = world, machine, chance
        self.asked = 0
        self.accepted: dict[str, int] = {}
        self.leaving = False

    async def live(self) -> None:
        """Until told to leave; the last rental is ended too."""
        while not self.leaving:
            if self.chance.random() < 0.5:
                self.machine.fault(self.chance.choice(OPS), **self.chance.choice(FAULTS))
            await self._rent_once()
            await self._settle()

    async def _ask(self, subject: str, data: dict[str, Any]) -> dict[str, Any]:
        """Patient as the whole: on a slow machine several kills pass before anybody has answered."""
        return await self.world.ask_until(subject, data, key=self.world.new_key(), timeout_s=CONVERGES_WITHIN_S)

    async def _rent_once(self) -> None:
        data = {
            "account_id": "acme", "ssh_public_key": CUSTOMER_KEY, "rate_uminor_per_hour": RATE,
            "node_id": self.machine.node_id, "external_ref": f"{self.machine.node_id}-{self.asked}",
        }  # fmt: skip
        self.asked += 1
        reply = await self._ask("cmd.allocation.request", data)
        assert reply["ok"], reply
        allocation_id = reply["data"]["allocation"]["allocation_id"]
        if self.chance.random() < 0.8:
            await self._is(allocation_id, "active", *ENDED)
        leave = {"allocation_id": allocation_id}
        reply = await self._ask("cmd.allocation.release", leave)
        assert reply["ok"], reply
        if "already_terminal" not in reply["data"]:
            self.accepted[allocation_id] = reply["data"]["accepted_us"]
        await self._is(allocation_id, *ENDED)

    async def _is(self, allocation_id: str, *states: str) -> None:
        async def check() -> bool:
            data = {"id": allocation_id}
            reply = await self._ask("qry.allocation.get", data)
            assert reply["ok"], reply
            return reply["data"]["state"] in states

        await until(check, f"{allocation_id} is {'/'.join(states)}", CONVERGES_WITHIN_S, pause_s=0.05)

    async def _settle(self) -> None:
        """What faults and kills have left for an operator is settled by the command that the case names."""
        target = f"node:{self.machine.node_id}"

        async def ready() -> bool:
            node = await self._ask("qry.node.get", {"id": self.machine.node_id})
            if node["data"]["state"] == "quarantined":
                await self._retry()
            return node["data"]["state"] == "ready" and not node["data"]["dirty"]

        await until(ready, f"{target} is ready and clean", CONVERGES_WITHIN_S, pause_s=0.05)

    async def _retry(self) -> None:
        open_cases = await self._ask("qry.ops_case.list", {"kind": "cleanup_exhausted", "state": "open"})
        for case in open_cases["data"]["items"]:
            data = {"allocation_id": case["target_ref"].partition(":")[2], "reason": "after the crash"}
            await self._ask("ops.cleanup.retry", data)


async def _kill_again_and_again(world: World, chance: random.Random, customers: list["asyncio.Task[None]"]) -> None:
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0.02, 1.2))
        for task in customers:
            if task.done():
                task.result()
        world.kill()
        if chance.random() < 0.3:
            await world.start_and_kill(chance.uniform(0.1, 1.0))  # in the midst of its recovery, or before
        await world.restart()


def _rented(customers: list[Customer]) -> int:
    return sum(customer.asked for customer in customers)


async def _as_many_rentals_as_kills(customers: list[Customer]) -> None:
    async def enough() -> bool:
        return _rented(customers) >= KILLS

    await until(enough, f"{KILLS} rentals", CONVERGES_WITHIN_S)


async def _all_are_there(world: World, customers: list[Customer]) -> None:
    rows = await world.rows("SELECT * FROM public_v1.allocation")
    assert len(rows) == sum(customer.asked for customer in customers)
    assert len({row["external_ref"] for row in rows}) == len(rows)
    meters = {row["allocation_id"]: row for row in await world.rows("SELECT * FROM public_v1.meter")}
    for row in rows:
        assert not row["cleanup_pending"], row
        assert (row["activated_us"] is not None) == (row["allocation_id"] in meters), row
    for customer in customers:
        for allocation_id, accepted_us in customer.accepted.items():
            if (meter := meters.get(allocation_id)) is not None:
                assert meter["stopped_us"] == max(accepted_us, meter["started_us"]), meter


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_killed_thirty_times_under_load_everything_converges(state_dir: Path) -> None:
    # given customers on machines with faults
    seed = int(os.environ.get("AMENDS_TEST_SEED", "0")) or secrets.randbits(32)
    log.warning("seed %d (AMENDS_TEST_SEED=%d repeats the choices)", seed, seed)
    chance = random.Random(seed)
    async with World(state_dir, "[timing]\nssh_step_timeout_ms = 800\nsetup_fail_limit = 1000\n").running() as world:
        await world.account("acme")
        await _live_and_be_killed(world, chance)


async def _live_and_be_killed(world: World, chance: random.Random) -> None:
    machines = [await world.add_machine() for _ in range(MACHINES)]
    customers = [Customer(world, machine, random.Random(chance.random())) for machine in machines]
    living = [asyncio.create_task(customer.live()) for customer in customers]
    begun = time.monotonic()
    # when the runtime is killed, again and again
    try:
        await _kill_again_and_again(world, chance, living)
        await _as_many_rentals_as_kills(customers)
        for machine in machines:
            machine.ssh.faults.clear()
        for customer in customers:
            customer.leaving = True
        async with asyncio.timeout(CONVERGES_WITHIN_S):
            await asyncio.gather(*living)
        # then
        await nothing_is_left_under_way(world)
        await nobody_is_left(world)
        await _all_are_there(world, customers)
        await no_event_is_doubled_or_lost(world)
        await the_records_are_whole(world)
        log.warning("%d kills, %d rentals, %.0f s", KILLS, _rented(customers), time.monotonic() - begun)
    finally:
        for task in living:
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)
