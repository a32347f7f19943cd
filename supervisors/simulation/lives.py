"""Many rentals of random length in one simulated world, ended in every way there is.

By release, by force, by the loss or the restart of the node, and by a release of what is dead already. Meanwhile posted
windows are posted again, some altered, and payments are told of by Stripe in any order, some news again and again. What
the ledger comes to is for others to reckon.
"""

import asyncio
import contextlib
import random
from typing import Any

from adapters.simulated.machines import Machine
from supervisors.simulation import events
from supervisors.simulation.world import Refused, Running

SITES, NODES_A_SITE, AT_ONCE = 2, 8, 6
REASONS = ("operator_request", "platform_fault", "")
ENDS = ("release",) * 4 + ("force",) * 3 + ("die",) * 3 + ("reboot",) * 2 + ("release the dead",) * 2
MAX_S = 4.0
PAYS, REFUNDS, REPLAYS = 0.3, 0.5, 0.3  # shares of lives


class Lives:
    """See above; `seed` makes them the same again."""

    def __init__(self, count: int, seed: int) -> None:
        self._left, self._chance = count, random.Random(seed)  # noqa: S311 - a simulated world's
        self.ended = self.replayed = 0
        self.paid: dict[str, int] = {}  # what the payments come to: ledger key and minor units

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
            key = f"life-{self._left}"
            if self._chance.random() < PAYS:
                await self._pay(running, key.replace("-", ""))
            await self._one(running, key)
            self.ended += 1

    async def _one(self, running: Running, key: str) -> None:
        chance = self._chance
        allocation = await running.rent("acme", key, rate=chance.choice((0, 1, 2_970_000, 10**9, 10**12, 10**13)))
        await running.until(lambda: running.state("allocation", allocation) in ("active", "failed"))
        if running.state("allocation", allocation) == "failed":
            return
        machine = running.world.machine(running.body("allocation", allocation)["node_id"])
        await asyncio.sleep(chance.random() ** 2 * MAX_S)
        if chance.random() < REPLAYS:
            await self._replay(running, allocation, key)
        await self._end(running, allocation, key, machine)

    async def _replay(self, running: Running, allocation: str, key: str) -> None:
        """Some posted windows are delivered again, all at once, and every other one altered."""
        tables = running.world.database.tables.rows
        meter_id = running.body("allocation", allocation)["billing"]["meter_id"]
        posted = [row for row in tables["ledger_entries"].values()
                  if row["meter_id"] == meter_id and row["window_start_us"] is not None]  # fmt: skip

        async def deliver(number: int, row: dict[str, Any]) -> None:
            self.replayed += 1
            with contextlib.suppress(Refused):
                await running.ask(
                    "ops.billing.post_window", f"{key}-{number}", meter_id=meter_id, delivery_id=str(number),
                    reason="r",
                    window_start_us=row["window_start_us"], amount_minor=row["amount_minor"] + number % 2,
                )  # fmt: skip

        chosen = self._chance.choices(posted, k=4) if posted else []
        await asyncio.gather(*(deliver(number, row) for number, row in enumerate(chosen)))

    async def _pay(self, running: Running, name: str) -> None:
        """A payment, perhaps with a refund, of which Stripe tells in any order."""
        chance, payment, amount = self._chance, f"pi_{name}", self._chance.randint(1, 10**6)
        said = [events.intent(f"evt_i{name}", payment, amount, account="acme"),
                events.session(f"evt_s{name}", payment, amount, account="acme")]  # fmt: skip
        self.paid[f"topup:{payment}"] = amount
        if chance.random() < REFUNDS:
            back = chance.randint(1, amount)
            said += [events.refund(f"evt_{kind}{name}", payment, f"re_{name}", back, kind=kind)
                     for kind in ("created", "updated")]  # fmt: skip
            self.paid[f"refund:re_{name}"] = back
        deliveries = [each for each in said for _ in range(chance.randint(1, 4))]
        chance.shuffle(deliveries)
        await asyncio.gather(*(running.deliver(each) for each in deliveries))

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
