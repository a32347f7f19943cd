"""A rental runtime in a simulated world: database, bus and machines are kept, runtimes come and go.

    world = World(seed=1)
    world.run(story)          # a runtime from its start through the story to its end; False: it crashed before

Time goes on from run to run. Clients ask with the idempotency keys they asked with before, as clients do.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import cache, lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from actors.account.mirror import GRACE_US
from actors.between import RESTORED_BY
from actors.money.policy import Policy
from adapters.simulated.agents import AgentSteps
from adapters.simulated.bus import BusConnection, SimulatedBus
from adapters.simulated.faults import Links
from adapters.simulated.journal import Database, SimulatedJournal
from adapters.simulated.lease import SimulatedLease
from adapters.simulated.loop import STEPS, Crashed, VirtualLoop
from adapters.simulated.machines import Machine, MachineSteps, SimulatedMachines
from adapters.simulated.providers import Provider, SimulatedProviders, SimulatedProviderSteps
from adapters.simulated.stripe_steps import SimulatedMirror, SimulatedStripe
from amends.delivery.notices import NoticeRunner
from amends.ports.clock import Sources
from amends.ports.steps import StepRunner
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint, Entry
from amends.runtime.trunk import Supervisor, SupervisorSpec
from amends.values.errors import Rejected, Unavailable
from amends.values.limits import Limits, LimitValue
from supervisors.api.endpoints import checks, commands, finders
from supervisors.api.webhooks import Webhooks
from supervisors.api.whatif import WhatIf
from supervisors.balances import GIVES
from supervisors.bus_admin import BusAdmin, Republishes
from supervisors.core import Core
from supervisors.invariants.records import Violation
from supervisors.late_mounts import LateMounts
from supervisors.loading import RESTORE, Restore
from supervisors.policy_file import BUILT_IN, read
from supervisors.rental import RENTAL
from supervisors.simulation.points import Points
from supervisors.stripe_look import StripeLook
from supervisors.stripe_steps import StripeSteps
from supervisors.timing import timing

START_US = 1_768_478_400_000_000
BEAT_S = 0.2
WINDOW_US = 1_000_000  # so that stories have windows
PATIENCE_S = 600.0  # virtual: all is quiet within ten minutes (L1)
CUSTOMER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEGd9bAiRPwdzoHc9bXh0hUeQZEKrxfD5wyKYs6oFGcW"
AGAIN = ("throttled", "draining", "deadline_exceeded", "db_unavailable", "internal")  # Stripe sends it again
Tell = Callable[["Running"], Coroutine[Any, Any, None]]  # what clients do with a runtime, to its end


class Refused(Exception):
    """A command was refused; `code` says why, `details` names the field."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: str = error["code"]
        self.details: dict[str, Any] = error["details"]


class NotQuiet(AssertionError):
    """Something is still owed after all patience."""


class Terms(Struct, frozen=True):
    """Whose money and whose patience: the text of a policy file that has been read, the timing table, heartbeats."""

    policy_text: str
    timing: dict[str, LimitValue]
    beat_s: float = BEAT_S

    @property
    def patience_s(self) -> float:
        """How long a world may take to become quiet: ten minutes, and twice the longest waits that its timing has."""
        caps = [value[1] for value in self.timing.values() if isinstance(value, tuple)]
        reprobe_ms = self.timing["reprobe_ms"]
        assert isinstance(reprobe_ms, int)
        return PATIENCE_S + 2 * (max(caps) + reprobe_ms) / 1000


@cache
def usual_terms() -> Terms:
    """The built-in policy with windows of a second, and the timing of the profile `acceptance`."""
    text = BUILT_IN.read_text(encoding="utf-8")
    return Terms(text.replace("window_us = 3_600_000_000", f"window_us = {WINDOW_US}"), timing("acceptance", {}))


@lru_cache(maxsize=16)
def _policy(text: str) -> Policy:
    """The policy of that text, read once for all the worlds that have it."""
    return read(text.encode(), "policy.toml")


class World:
    """What outlives runtimes. `limits` take the place of what `terms` have."""

    def __init__(self, seed: int = 0, terms: Terms | None = None, **limits: Any) -> None:
        self.patience_s = terms.patience_s if terms is not None else PATIENCE_S
        terms = terms or usual_terms()
        self.chance = random.Random(seed)  # noqa: S311 - a simulated world's
        self.database = Database((RENTAL,))
        self.bus = SimulatedBus()
        self.machines = SimulatedMachines()
        self.providers = SimulatedProviders()
        self.policy_text, self.beat_s = terms.policy_text, terms.beat_s
        self.policy = _policy(self.policy_text)
        self.limits = Limits({**terms.timing, **limits}, seed=seed)
        self.tick_s = 0.0  # between two looks of the detector, where its own are nearer
        self.now_s = 0.0
        self.clock_ahead_us = 0  # of the runtimes' machine, before Postgres' and everybody else's
        self.time: Callable[[], float] = lambda: self.now_s
        self.stripe = SimulatedStripe(lambda: START_US / 1e6 + self.time())
        self.runs = 0
        self.told: dict[str, str] = {}  # by idempotency key: the allocation that a client was told of
        self.broken: list[Violation] = []  # what a client has seen that may not be

    def machine(self, node_id: str) -> Machine:
        """A machine that is up."""
        return self.machines.machines.get(node_id) or self.machines.add(node_id)

    def provider(self, provider_id: str = "p1") -> Provider:
        """A storage provider that serves."""
        return self.providers.providers.get(provider_id) or self.providers.add(provider_id)

    def restore(self, backup: dict[str, Any], reason: str = "the disk is gone") -> int:
        """An older copy of the database is put back and marked as `amends restore` does; the number of the restore."""
        self.database.put_back(backup)

        def mark(number: int) -> str:
            return msgspec.json.encode(Restore(number, reason, START_US + int(self.now_s * 1e6))).decode()

        self.database.mark_restored(RESTORE, RESTORED_BY, mark)
        return self.database.lease.epoch

    def balances(self) -> dict[str, int]:
        """What each account has, by the entries that are there."""
        found = Counter[str]()
        for row in self.database.tables.rows["ledger_entries"].values():
            found[row["account_id"]] += row["amount_minor"] * (1 if row["entry_type"] in GIVES else -1)
        return found

    def run(
        self, story: Tell, points: Points | None = None, steps: int = STEPS,
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> bool:  # fmt: skip
        """A runtime from its start through the story to its end; False if it crashed before.

        `steps`: callbacks that it may take before it counts as a livelock; `beside`: what goes on in the world
        meanwhile, from before the start on.
        """
        loop = VirtualLoop(self.now_s, steps)
        points = points or Points()
        points.loop = loop
        self.time = loop.time
        self.runs += 1
        try:
            loop.run_until_complete(self._tell(loop, points, story, beside))
        except Crashed:
            return False
        finally:
            self.now_s = loop.time() + 1.0
            self.time = lambda: self.now_s
            loop.bury()
            loop.close()
        if loop.unheard:
            raise AssertionError(f"a task failed unheard: {loop.unheard[0]}")
        return True

    async def _tell(
        self, loop: VirtualLoop, points: Points, story: Tell, beside: Callable[[], Coroutine[Any, Any, None]] | None
    ) -> None:
        goes_on = asyncio.create_task(beside(), name="beside") if beside is not None else None
        await Running(self, loop, points, is_dead=lambda holder: True).live(story)
        if goes_on is not None:
            goes_on.cancel()
            await asyncio.wait([goes_on])
            if not goes_on.cancelled():
                goes_on.result()


class Running:
    """One runtime of the world. It stands by while another one lives that holds the lease."""

    def __init__(
        self, world: World, loop: VirtualLoop, points: Points, name: str = "runtime", *,
        is_dead: Callable[[str], bool] = lambda holder: False,
    ) -> None:  # fmt: skip
        self.world, self._loop, self._points = world, loop, points
        self.links = Links()
        self.steps = MachineSteps(world.machines, points)
        self.lease = SimulatedLease(world.database, loop.time, name, is_dead=is_dead, faults=points, links=self.links)
        sources = Sources(
            wall_us=lambda: START_US + world.clock_ahead_us + loop.now_us(),
            monotonic_us=loop.now_us, entropy=world.chance.randbytes,
        )  # fmt: skip
        self.core = Core(
            world.policy, world.limits, policy_text=world.policy_text, domain_label="site", sources=sources
        )
        self._tasks: list[asyncio.Task[Any]] = []

    async def live(self, story: Tell) -> None:
        """Start, tell the story, stop; raises what ended the tree before, such as `Fenced`."""
        await self.start()
        telling = asyncio.create_task(story(self), name="story")
        await asyncio.wait([telling, self._tree], return_when=asyncio.FIRST_COMPLETED)
        if self._tree.done():
            self._beating.cancel()
            await self.core.kernel.aclose()
            await self._tree
        await telling
        await self.stop()

    async def start(self) -> None:
        """As `supervisors.boot.runtime.Runtime` does, without servers."""
        world, core, links = self.world, self.core, self.links
        await self.lease.acquire()
        sources = core.kernel.sources
        journal = SimulatedJournal(
            world.database, self.lease.epoch, lambda: START_US + self._loop.now_us(), self._points, links
        )
        await core.load(journal, self.lease)
        await core.watch(lambda: links.bus, world.balances().items())
        core.detector.tick_s = max(core.detector.tick_s, world.tick_s)
        agents = LateMounts(core.kernel.engine)
        agents.steps = AgentSteps(
            world.machines, core.pool.node_epoch, may_act=self.lease.may_act, faults=self._points, links=links,
            late=agents.came,
        )  # fmt: skip
        now_us = core.kernel.clock.now_us  # a wall clock that steps back would hold what waits for Stripe
        mirror = SimulatedMirror(world.stripe, now_us=now_us, faults=self._points)
        look = StripeLook(self._credits, self._mirrored, now_us)
        stripe = StripeSteps(mirror, now_us, look=look)
        bus, steps = BusConnection(world.bus, self._points, links), self.steps
        runners: dict[str, StepRunner] = {
            "ssh": steps,
            "agent": agents,
            "bus": NoticeRunner(bus),
            "bus-admin": BusAdmin(bus, journal, self.lease.may_act),
            "stripe": stripe,
            "provider": SimulatedProviderSteps(
                world.providers, now_us=sources.wall_us, faults=self._points, links=links
            ),
        }
        republishes = Republishes(self._republished)
        core.kernel.engine.listeners.append(republishes.follow)
        core.wire(runners, bus, bus_is_there=lambda: links.bus, stripe_is_there=stripe.there)

        table = commands(
            (RENTAL,), checks(str, str, {}), finders(journal, self._given_up), {"republish": republishes.outcome}
        )
        table += WhatIf(core.kernel, core.pool, table).endpoints()
        self._endpoints: dict[str, Endpoint] = {endpoint.subject: endpoint for endpoint in table}
        self.requests = core.requests(lambda headers, role: Identity(role, role=role))
        self.webhooks = Webhooks(core.kernel.engine, journal, lambda body, signature: None, lambda source, kind: None)
        await core.kernel.resume()
        spec = SupervisorSpec(name="amends", children=[*core.kernel.children(), *core.children()])
        tree = Supervisor(spec, sources.entropy)
        self._tree = asyncio.create_task(tree.run(), name="trunk")
        await tree.started.wait()
        core.pool.loaded()
        self.webhooks.open()
        self._beating = asyncio.create_task(self._beat(), name="heartbeats")

    async def stop(self) -> None:
        """A clean end."""
        self._beating.cancel()
        await self.core.kernel.drain(10)
        self._tree.cancel()
        await asyncio.wait([self._tree, self._beating])
        await self.core.kernel.aclose()

    async def _given_up(self, account_id: str) -> list[dict[str, Any]]:
        """Credits of an account that never came to Stripe, nor are only on their way to who sends them."""
        tables, found, before_us = self.world.database.tables.rows, [], self.core.kernel.clock.now_us() - GRACE_US
        for entry in tables["ledger_entries"].values():
            row = tables["mirrored_credits"].get((entry["idempotency_key"],), {})
            if entry["account_id"] == account_id and entry["entry_type"] == "credit" and entry["meter_id"]:
                known = {name: row.get(name) for name in ("customer", "state", "first_us", "generation")}
                if known["state"] == "failed" or (known["state"] is None and entry["created_us"] < before_us):
                    found.append({
                        **known, "ledger_key": entry["idempotency_key"], "currency": entry["currency"],
                        "amount_minor": row.get("amount_minor", entry["amount_minor"]),
                    })  # fmt: skip
        return found

    async def _credits(self, customer: str) -> list[dict[str, Any]]:
        """What the ledger says that Stripe has of a customer."""
        rows = self.world.database.tables.rows["mirrored_credits"]
        return [{**row, "ledger_key": key} for (key,), row in rows.items() if row["customer"] == customer]

    async def _mirrored(self, customer: str) -> dict[str, list[tuple[int, str]]]:
        """What it has."""
        if not self.world.stripe.up:
            raise Unavailable("Stripe cannot be reached")
        found = self.world.stripe.mirrored(customer).items()
        return {key: [(minor, currency) for _, minor, currency in made] for key, made in found}

    async def _republished(self, question: str, target: str, request_id: str) -> list[dict[str, Any]]:
        """How a republish ended that this runtime has not seen end."""
        rows = [
            {**row, "details": msgspec.json.decode(row["details"])}
            for row in self.world.database.tables.rows["audit_log"].values()
            if row["target_ref"] == target and row["action"].startswith("outbox.republish.")
        ]
        return [row for row in rows if row["details"]["request_id"] == request_id][-1:]

    async def _beat(self) -> None:
        while True:
            if self.links.bus:
                for machine in self.world.machines.machines.values():
                    if machine.up and machine.beats:
                        self.core.detector.heard(machine.node_id, machine.boot_id)
                self.core.detector.canary()
            await asyncio.sleep(self.world.beat_s)

    # --- clients -------------------------------------------------------------------------------------

    async def ask(self, subject: str, key: str, /, **body: Any) -> dict[str, Any]:
        """A command's data, asked again until it is answered; raises `Refused`."""
        while True:
            endpoint = self._endpoints[subject]
            headers = {"Idempotency-Key": key}
            entry = self.requests.enter(endpoint, headers)
            assert isinstance(entry, Entry)
            reply = await self.requests.handle(endpoint, msgspec.json.encode(body), headers, entry)
            if not self.lease.may_answer():
                await asyncio.sleep(0.5)  # it is silent: another runtime may have answered
                continue
            if reply.body["ok"]:
                data: dict[str, Any] = reply.body["data"]
                return data
            if not reply.body["error"]["retryable"]:
                raise Refused(reply.body["error"])
            await asyncio.sleep(0.5)

    async def deliver(self, event: dict[str, Any]) -> bool:
        """Stripe delivers an event until it is acknowledged; whether it was a duplicate."""
        while True:
            try:
                answer = await self.webhooks.take(msgspec.json.encode(event), "", "simulated")
            except (Rejected, Unavailable) as error:
                if isinstance(error, Rejected) and error.code not in AGAIN:
                    raise
                await asyncio.sleep(1.0)
            else:
                return bool(answer["duplicate"])

    async def account(self, account_id: str, **more: str) -> None:
        """There is this account."""
        await self.once("cmd.account.create", account_id, account_id=account_id, **{"currency": "usd", **more})

    async def node(self, node_id: str, *states: str, **labels: str) -> Machine:
        """There is this node, ready to be rented (or in one of these states)."""
        machine = self.world.machine(node_id)
        ssh = {"host": node_id, "port": 22, "host_key": machine.host_key}
        await self.once("cmd.node.register", node_id, node_id=node_id, ssh=ssh, labels=labels)
        await self.until(lambda: self.state("node", node_id) in (states or ("ready",)))
        return machine

    async def once(self, subject: str, key: str, /, **body: Any) -> None:
        """It is so, whoever has seen to it."""
        try:
            await self.ask(subject, key, **body)
        except Refused as refused:
            if refused.code != "already_exists":
                raise

    async def rent(self, account_id: str, key: str, rate: int = 5_000_000) -> str:
        """The id of an allocation that is asked for; `rate` in millionths of a minor unit per hour."""
        data = await self.ask("cmd.allocation.request", key, account_id=account_id, ssh_public_key=CUSTOMER_KEY,
                              rate_uminor_per_hour=rate)  # fmt: skip
        told = str(data["allocation"]["allocation_id"])
        known = self.world.told.setdefault(key, told)
        if known != told or not self.state("allocation", told):
            self.world.broken.append(Violation("C7", key, f"told of {known}, then of {told}"))
        return told

    async def force(self, allocation_id: str, key: str, reason_code: str) -> None:
        """An operator ends it."""
        await self.ask("ops.allocation.force_release", key, allocation_id=allocation_id, reason_code=reason_code,
                       reason="the story says so")  # fmt: skip

    async def release(self, allocation_id: str, key: str) -> None:
        """The customer gives it back."""
        await self.ask("cmd.allocation.release", key, allocation_id=allocation_id)

    # --- looking -------------------------------------------------------------------------------------

    def state(self, kind: str, identifier: str) -> str:
        """The committed state, "" for none."""
        found = self.world.database.tables.states.get((kind, identifier))
        return found.state if found is not None else ""

    def body(self, kind: str, identifier: str) -> dict[str, Any]:
        """The committed body."""
        body: dict[str, Any] = msgspec.json.decode(self.world.database.tables.states[kind, identifier].body)
        return body

    async def used(self, allocation_id: str, seconds: float) -> None:
        """The customer has had it for so long, if it is still there."""
        activated_us = self.body("allocation", allocation_id).get("rental", {}).get("activated_us", 0)
        await self.until(
            lambda: (
                self.core.kernel.clock.now_us() > activated_us + seconds * 1_000_000
                or self.state("allocation", allocation_id) != "active"
            )
        )

    async def until(self, holds: Callable[[], bool], patience_s: float = 0.0) -> None:
        """Let time pass until it holds; without `patience_s` as long as the world has patience."""
        deadline = self._loop.time() + (patience_s or self.world.patience_s)
        while not holds():
            if self._loop.time() > deadline:
                raise NotQuiet(f"{holds} does not come true; owed: {self.owed()}")
            await asyncio.sleep(0.05)

    async def quiet(self) -> None:
        """Let time pass until nothing is owed any more."""
        await self.until(lambda: not self.owed())

    def owed(self) -> list[str]:
        """What is still to be done: intended steps, messages, events, turns under way."""
        tables = self.world.database.tables
        steps = [row["name"] for row in tables.rows["step"].values() if row["ended_us"] is None]
        messages = [row["type"] for row in tables.rows["message"].values()]
        events = [row["subject"] for row in tables.rows["outbox"].values() if row["state"] == "pending"]
        kernel = self.core.kernel
        waiting = ["turns"] if kernel.writer.waiting or kernel.engine.waiting() or not kernel.writer.idle else []
        return [*steps, *messages, *events, *waiting]
