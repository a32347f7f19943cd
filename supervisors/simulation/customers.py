"""The customers of a random world: they come at random, rent, attach storage, pay, use what they have, and go.

What each is going to do is drawn when it comes; a crash changes nothing of it, since customers ask again with the keys
they asked with before.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from supervisors.invariants.records import Records, Violation
from supervisors.simulation import events
from supervisors.simulation.chronicle import Chronicle
from supervisors.simulation.storage_stories import ENDED, QUOTA, holds
from supervisors.simulation.weather import Weather
from supervisors.simulation.world import Refused, Running, World

BUSY: Final = 0.7  # share of the machines that are rented, on the average
STAYS: Final = 14.0  # paces that a customer stays, on the average
RATES: Final = (0, 1, 2_970_000, 249_000_000, 10**9, 10**12, 10**13)  # millionths of a minor unit per hour
ENDS: Final = ("release",) * 6 + ("force",) * 2 + ("release twice",)
REASONS: Final = ("operator_request", "platform_fault", "of_its_own")
ATTACHES, READS, DETACHES, PAYS, REFUNDS, DISPUTES, REPLAYS = 0.5, 0.3, 0.6, 0.35, 0.4, 0.1, 0.2  # shares of lives


class Life(Struct):
    """One customer's visit: what it is going to do."""

    number: int
    account: str
    rate: int
    stays_s: float
    ends: str
    reason: str
    namespace: str
    mode: str
    detaches: bool
    pays: int
    refunds: int
    disputes: bool
    replays: bool
    leaves_s: float = 0.0


class Customers:
    """See above. While they are `resting` nobody asks for anything new."""

    def __init__(self, world: World, chronicle: Chronicle, weather: Weather, *, seed: str, nodes: int) -> None:
        self._world, self._chronicle, self._weather, self._nodes = world, chronicle, weather, nodes
        self._chance = random.Random(seed)  # noqa: S311 - a simulated world's
        self.accounts = [f"acct-{number}" for number in range(max(2, nodes // 3))]
        self.here: dict[int, Life] = {}
        self.came = 0
        self._told: dict[str, int] = {}  # ledger keys of what Stripe has told of, and what they come to
        self.resting = True
        self._next_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def settle_in(self, running: Running) -> None:
        """Accounts, machines and namespaces, all of them there already when it is done again."""
        for number, account in enumerate(self.accounts):
            known = sorted(self._world.stripe.book.of("customer"))
            customer = known[number] if number < len(known) else self._world.stripe.customer()
            stripe = {"stripe_customer_id": customer} if number % 2 else {}
            await running.account(account, currency=self._world.policy.currency, **stripe)
            for part in range(2):
                name = f"{account}-{part}"
                holds(self._world, name)
                await running.once("cmd.namespace.create", name, namespace_id=name, account_id=account,
                                   provider_id="p1", quota_bytes=QUOTA)  # fmt: skip
        for number in range(self._nodes):
            name = f"n{number}"
            machine = self._world.machine(name)
            ssh = {"host": name, "port": 22, "host_key": machine.host_key}
            await running.once("cmd.node.register", name, node_id=name, ssh=ssh, labels={"site": f"s{number % 2}"})

    async def come_and_go(self, running: Running) -> None:
        """Until cancelled; raises what a life ended with that may not be."""
        self._tasks = [self._begin(running, life) for life in self.here.values()]
        try:
            while True:
                await asyncio.sleep(max(0.01, min(self._next_s - self._world.time(), self._weather.pace_s)))
                for task in [each for each in self._tasks if each.done()]:
                    self._tasks.remove(task)
                    task.result()
                if not self.resting and self._next_s <= self._world.time():
                    gap_s = STAYS * self._weather.pace_s / (BUSY * self._nodes)
                    self._next_s = self._world.time() + self._chance.expovariate(1 / gap_s)
                    self._tasks.append(self._begin(running, self._born()))
        finally:
            for task in self._tasks:
                task.cancel()

    def _begin(self, running: Running, life: Life) -> asyncio.Task[None]:
        return asyncio.create_task(self._live(running, life), name=f"life-{life.number}")

    def _born(self) -> Life:
        chance = self._chance
        self.came += 1
        account = chance.choice(self.accounts)
        life = self.here[self.came] = Life(
            number=self.came, account=account, rate=chance.choice(RATES), ends=chance.choice(ENDS),
            stays_s=self._weather.pace_s * STAYS * min(6.0, chance.expovariate(1.0)), reason=chance.choice(REASONS),
            namespace=f"{account}-{chance.randrange(2)}" if chance.random() < ATTACHES else "",
            mode="ro" if chance.random() < READS else "rw", detaches=chance.random() < DETACHES,
            pays=chance.randint(1, 10**6) if chance.random() < PAYS else 0,
            refunds=chance.randint(1, 10**6) if chance.random() < REFUNDS else 0,
            disputes=chance.random() < DISPUTES, replays=chance.random() < REPLAYS,
        )  # fmt: skip
        return life

    async def _live(self, running: Running, life: Life) -> None:
        try:
            if life.pays:
                await self._pay(running, life)
            await self._rent(running, life)
        except Refused as refused:
            self._chronicle.note(f"life  {life.number} is refused: {refused.code}")
        del self.here[life.number]

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():  # noqa: ASYNC110 - of a world that has no events of its own
            await asyncio.sleep(self._weather.pace_s / 20)

    async def _awake(self) -> None:
        await self._until(lambda: not self.resting)

    async def _rent(self, running: Running, life: Life) -> None:
        await self._awake()
        allocation = await running.rent(life.account, f"life-{life.number}", rate=life.rate)
        self._chronicle.note(f"life  {life.number} asks for {allocation}")

        def state() -> str:
            return running.state("allocation", allocation)

        await self._until(lambda: state() not in ("requested", "provisioning", "activating"))
        life.leaves_s = life.leaves_s or self._world.time() + life.stays_s
        attachment = ""
        if state() == "active" and life.namespace:
            attachment = await self._attach(running, life, allocation)
        await self._until(lambda: state() != "active" or self._world.time() >= life.leaves_s)
        await self._awake()
        if life.replays:
            await self._replay(running, life, allocation)
        if attachment and life.detaches and state() == "active":
            with contextlib.suppress(Refused):
                await running.ask("cmd.attachment.detach", f"life-{life.number}-detach", attachment_id=attachment)
        self._chronicle.note(f"life  {life.number} goes: {life.ends}, {state()}")
        if life.ends == "force":
            await running.force(allocation, f"life-{life.number}-force", life.reason)
        else:
            await running.release(allocation, f"life-{life.number}-release")
        if life.ends == "release twice":
            await running.release(allocation, f"life-{life.number}-again")
        await self._until(lambda: state() in ("released", "failed"))

    async def _attach(self, running: Running, life: Life, allocation: str) -> str:
        await self._awake()
        wish = {"allocation_id": allocation, "namespace_id": life.namespace, "mode": life.mode,
                "mount_path": f"/mnt/{life.namespace}"}  # fmt: skip
        try:
            data = await running.ask("cmd.attachment.attach", f"life-{life.number}-attach", **wish)
        except Refused as refused:
            self._chronicle.note(f"life  {life.number} may not attach: {refused.code}")
            return ""
        attachment = str(data["attachment"]["attachment_id"])
        await self._until(lambda: running.state("attachment", attachment) in ("attached", "detach_failed", *ENDED))
        return attachment

    async def _pay(self, running: Running, life: Life) -> None:
        """A payment, perhaps with a refund or a dispute, of which Stripe tells as the weather is."""
        await self._awake()
        chance = random.Random(f"{life.number} pays")  # noqa: S311 - the same after a crash
        name, currency, sky, whose = f"life{life.number}", self._world.policy.currency, self._weather.sky, life.account
        payment = f"pi_{name}"
        said = [events.intent(f"evt_i{name}", payment, life.pays, account=whose, currency=currency),
                events.session(f"evt_s{name}", payment, life.pays, account=whose, currency=currency)]  # fmt: skip
        if life.refunds:
            back = min(life.refunds, life.pays)
            said += [events.refund(f"evt_{kind}{name}", payment, f"re_{name}", back, kind=kind, currency=currency)
                     for kind in ("created", "updated")]  # fmt: skip
        elif life.disputes:
            kinds = ("created", "funds_withdrawn", "funds_reinstated")[: chance.randint(1, 3)]
            said += [events.dispute(f"evt_{kind}{name}", payment, life.pays, kind, currency=currency) for kind in kinds]
        said = [each for each in said for _ in range(chance.randint(2, 4) if sky.repeats else 1)]
        if sky.reorders:
            chance.shuffle(said)
        self._chronicle.note(f"life  {life.number} pays {life.pays}, told of {len(said)} times")
        for each in said:
            await running.deliver(each)
        self._told[f"topup:{payment}"] = life.pays
        if life.refunds:
            self._told[f"refund:re_{name}"] = min(life.refunds, life.pays)

    def wronged(self, records: Records) -> list[Violation]:
        """Each payment and refund that was told of is in the ledger once, with its amount (P1)."""
        found = {row["idempotency_key"]: row["amount_minor"] for row in records.of("ledger_entries")}
        return [
            Violation("B7", key, f"{found.get(key)} in the ledger, Stripe said {amount}")
            for key, amount in self._told.items()
            if found.get(key) != amount
        ]

    async def _replay(self, running: Running, life: Life, allocation: str) -> None:
        """Some posted windows are delivered again, every other one altered (R05)."""
        tables = self._world.database.tables.rows
        meters = [row["meter_id"] for row in tables["meters"].values() if row["allocation_id"] == allocation]
        posted = [row for row in tables["ledger_entries"].values()
                  if row["meter_id"] in meters and row["window_start_us"] is not None]  # fmt: skip
        for number, row in enumerate(posted[:2]):
            with contextlib.suppress(Refused):
                await running.ask(
                    "ops.billing.post_window", f"life-{life.number}-post-{number}", meter_id=row["meter_id"],
                    delivery_id=f"{life.number}-{number}", reason="a replay", window_start_us=row["window_start_us"],
                    amount_minor=row["amount_minor"] + number % 2,
                )  # fmt: skip
