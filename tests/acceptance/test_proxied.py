"""A proxy of our own between the runtime and each part, switched into one fault after another while customers live.

TEST_PROXIED=50 goes through all of them that often (names that begin with AMENDS_ are for the runtime).
"""

import asyncio
import contextlib
import itertools
import logging
import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.postgres import EmbeddedPostgres
from adapters.simulated.stripe_book import API_KEY
from adapters.simulated.stripe_credits import create_customer
from adapters.simulated.stripe_payments import create_intent
from adapters.simulated.stripe_server import StripeSimulator
from adapters.simulated.stripe_webhooks import Endpoint
from tests.acceptance.aftermath import (
    no_event_is_doubled_or_lost,
    nobody_is_left,
    nothing_is_left_under_way,
    the_records_are_whole,
)
from tests.acceptance.lives import Eyes, Life, ledgers_by_the_book
from tests.acceptance.machine import Machine
from tests.acceptance.stripe import SECRET, all_wrong
from tests.acceptance.world import World, until
from tests.directories import with_database
from tests.proxy import Fault, Proxy

log = logging.getLogger(__name__)
TIMES = int(os.environ.get("TEST_PROXIED", "1"))
LATENCY_S = {"stripe": 0.3, "ssh": 0.05, "nats": 0.3, "postgres": 0.1}
ON_ALL: tuple[Fault, ...] = ("latency", "slicing", "reset", "blackhole out", "blackhole back")
ROUNDS: Sequence[tuple[str, Fault]] = (
    *((part, fault) for fault in ON_ALL for part in LATENCY_S),
    ("postgres", "cut after"),
)
STANDS_S = 1.0
MACHINES = 3
# An SSH server that cannot be reached or does not answer is a failure of its node: a set-up may fail then (R02), and a
# cleanup at first (R04); who cannot be locked out at once is a case until he is.
MAY_FAIL = {("ssh", fault) for fault in ("reset", "blackhole out", "blackhole back")}
FORCED, LOCKOUT = "R09", "lockout_failed"
CODES = {"ssh_connect_failed", "ssh_timeout", "ssh_step_failed"}
# The machines beat in the busy process of the test: what counts as silence is more than that may hold them up.
TIMING = """[timing]
cleanup_tries = 1000
setup_fail_limit = 1000
allocation_deadline_ms = 60000
suspect_after_ms = 2000
offline_after_ms = 5000
"""


class ProxiedMachine(Machine):
    """A machine whose SSH server the runtime reaches through a proxy."""

    def __init__(self, world: World, node_id: str) -> None:
        super().__init__(world, node_id)
        self.proxy = Proxy(self.ssh.port, latency_s=LATENCY_S["ssh"])

    @property
    def ssh_port(self) -> int:
        return self.proxy.port

    async def start(self) -> None:
        await self.proxy.start()
        await super().start()

    async def stop(self) -> None:
        await self.proxy.stop()
        await super().stop()


class Customer(Life):
    """Rents until released, or for a second and until an operator's force gives money back.

    `early`: his rental begins before the fault and ends under it.
    """

    reasons, rates = ("platform_fault",), (10**13,)

    def __init__(self, world: World, eyes: Eyes, chance: random.Random, how: str, *, early: bool) -> None:
        super().__init__(world, eyes, chance, lambda: 0)
        self.ends, self.early = (how,), early
        self.there, self.broken = asyncio.Event(), asyncio.Event()

    async def _stay(self) -> None:
        self.there.set()
        if self.ends == ("force",):
            await asyncio.sleep(1.1)  # what has cost nothing yet is given back as nothing
        if self.early:
            await self.broken.wait()


class Proxied(World):
    """A runtime that reaches Postgres, NATS and Stripe through proxies, and Stripe it; we look past them."""

    def __init__(self, base: Path) -> None:
        super().__init__(base / "runtime", window_us=1_000_000)
        self.postgres, self.broker = EmbeddedPostgres(base / "servers"), EmbeddedNats(base / "servers")
        self.stripe = StripeSimulator()
        self.parts: dict[str, list[Proxy]] = {}

    async def start(self) -> None:
        host = parse_qs(urlsplit(self.postgres.dsn).query)["host"][0]
        postgres = await self._proxy("postgres", f"{host}/.s.PGSQL.5432")
        nats = await self._proxy("nats", int(self.broker.url.rpartition(":")[2]))
        stripe = await self._proxy("stripe", int(self.stripe.url.rpartition(":")[2]))
        self.config = (
            f'callers = "open"\n[postgres]\ndsn = "postgresql://amends@127.0.0.1:{postgres.port}/amends"\n'
            f'[nats]\nservers = ["nats://127.0.0.1:{nats.port}"]\n[stripe]\napi_key = "{API_KEY}"\n'
            f'api_base = "http://127.0.0.1:{stripe.port}"\nmirror_credits = true\n'
            f'webhook_secrets = ["{SECRET}"]\n{TIMING}'
        )
        await super().start()
        self.endpoints |= {"nats_url": self.broker.url, "postgres_dsn": self.postgres.superuser_dsn}
        webhook = await self._proxy("stripe", int(self.endpoints["http_url"].rpartition(":")[2]))
        self.stripe.webhooks.endpoints = [Endpoint(f"http://127.0.0.1:{webhook.port}/stripe/webhook", [SECRET])]

    async def _proxy(self, part: str, target: int | str) -> Proxy:
        made = Proxy(target, latency_s=LATENCY_S[part])
        self.parts.setdefault(part, []).append(made)
        await made.start()
        return made

    async def add_proxied(self) -> None:
        machine = await self.enlist(ProxiedMachine(self, self.new_name("n")))
        self.parts.setdefault("ssh", []).append(machine.proxy)

    async def stop(self) -> None:
        await super().stop()
        for proxy in (proxy for part in ("postgres", "nats", "stripe") for proxy in self.parts.get(part, ())):
            await proxy.stop()


@contextlib.asynccontextmanager
async def behind_proxies(base: Path) -> AsyncIterator[Proxied]:
    """Servers, and a runtime behind proxies, with the account acme."""
    await with_database(base / "servers")
    world = Proxied(base)
    async with contextlib.AsyncExitStack() as ends:
        for server in (world.postgres, world.broker, world.stripe):
            ends.push_async_callback(server.stop)
            await server.start()
        async with world.running():
            customer = create_customer(world.stripe.book, {}, ())["id"]
            await world.ok("cmd.account.create", {
                "account_id": "acme", "currency": "usd", "stripe_customer_id": customer,
            })  # fmt: skip
            for _ in range(MACHINES):
                await world.add_proxied()
            yield world


def pay(world: Proxied, payments: dict[str, int]) -> None:
    """A customer pays at Stripe, which tells the runtime."""
    (customer,), amount = world.stripe.book.of("customer"), 100 + len(payments)
    given = {"amount": str(amount), "currency": "usd", "customer": customer, "confirm": "true",
             "payment_method": "pm_card_visa"}  # fmt: skip
    payments[create_intent(world.stripe.book, given, ())["id"]] = amount


def customers(world: World, eyes: Eyes, chance: random.Random) -> list[Customer]:
    """Those of one round."""
    ways = (("force", True), ("release", True), ("release", False))
    return [Customer(world, eyes, chance, how, early=early) for how, early in ways]


async def live_through(
    proxies: list[Proxy], fault: Fault, lives: list[Customer], name: str, *, struck: Callable[[], None],
    reset_holed: bool,
) -> None:  # fmt: skip
    """Customers live while the fault stands on the part, and after it to their end."""
    before = [proxy.did[fault] for proxy in proxies]

    async def all_hit() -> bool:
        return all(proxy.did[fault] > count for proxy, count in zip(proxies, before, strict=True))

    async with asyncio.TaskGroup() as tasks:
        early = [life for life in lives if life.early]
        for number, life in enumerate(early):
            tasks.create_task(life.live(f"{name}-early-{number}"))
        for life in early:
            await life.there.wait()
        for proxy in proxies:
            proxy.strike(fault)
        for life in early:
            life.broken.set()
        struck()
        for number, life in enumerate(life for life in lives if not life.early):
            tasks.create_task(life.live(f"{name}-{number}"))
        await asyncio.sleep(STANDS_S)
        await until(all_hit, f"{name} has happened")
        for proxy in proxies:
            proxy.lift(reset_holed=reset_holed)


@pytest.mark.slow
@pytest.mark.timeout(120 + 120 * TIMES)
async def test_whatever_stands_between_the_runtime_and_a_part_everything_comes_to_its_end(state_dir: Path) -> None:
    seed = int(os.environ.get("AMENDS_TEST_SEED", "0")) or secrets.randbits(32)
    log.warning("seed %d (AMENDS_TEST_SEED=%d repeats the choices)", seed, seed)
    chance, lives, payments = random.Random(seed), list[tuple[str, Fault, Customer]](), dict[str, int]()
    async with behind_proxies(state_dir) as world:
        eyes = Eyes(world)
        for time_, (part, fault) in itertools.product(range(TIMES), ROUNDS):
            some = customers(world, eyes, chance)
            lives += [(part, fault, life) for life in some]
            # What has lost bytes is reset at the end of one blackhole, and stays black after the other; then in turn.
            reset_holed = (fault == "blackhole out") == (time_ % 2 == 0)
            began = time.monotonic()
            await live_through(
                world.parts[part], fault, some, f"{part}-{fault}-{time_}", struck=partial(pay, world, payments),
                reset_holed=reset_holed,
            )  # fmt: skip
            log.warning("%s, %s: %.1f s", part, fault, time.monotonic() - began)
        # then
        await nothing_is_left_under_way(world)
        await nobody_is_left(world)
        for part, fault, life in lives:
            await check_end(world, life.allocation_id, (part, fault) in MAY_FAIL)
        assert {row["kind"] for row in await world.rows("SELECT kind FROM public_v1.ops_case")} <= {LOCKOUT}
        await ledgers_by_the_book(world)
        await stripe_agrees(world, payments)
        await no_event_is_doubled_or_lost(world)
        await the_records_are_whole(world)
        log.warning("%s", {part: [dict(each.did) for each in proxies] for part, proxies in world.parts.items()})
    assert "Traceback" not in world.log_text(), world.log_text()[-5000:]


async def check_end(world: World, allocation_id: str, may_fail: bool) -> None:
    """Released without a failure of its own, or as the documented behaviour of a failed SSH step says."""
    row = await world.allocation(allocation_id)
    assert not row["cleanup_pending"], row
    query = "SELECT matrix_row FROM public_v1.recovery_run WHERE entity = $1"
    rows = {run["matrix_row"] for run in await world.rows(query, f"allocation:{allocation_id}")}
    cases = await world.rows("SELECT * FROM public_v1.ops_case WHERE target_ref LIKE '%' || $1", allocation_id)
    if may_fail:
        assert row["state"] == "released" or row["failure_code"] in CODES, row
        assert rows <= {FORCED, "R02", "R04"}
    else:
        assert (row["state"], rows - {FORCED}, cases) == ("released", set(), []), row


async def stripe_agrees(world: Proxied, payments: dict[str, int]) -> None:
    """Every payment is booked once, every credit of the ledger stands at Stripe once."""

    async def all_told() -> bool:
        owed = await world.rows("SELECT 1 FROM mirrored_credits WHERE state <> 'done'")
        return not owed and not world.stripe.webhooks.under_way

    await until(all_told, "Stripe and the ledger have told each other all")
    query = "SELECT idempotency_key, amount_minor FROM public_v1.ledger_entry WHERE idempotency_key LIKE 'topup:%'"
    booked = {row["idempotency_key"]: row["amount_minor"] for row in await world.rows(query)}
    assert booked == {f"topup:{payment}": amount for payment, amount in payments.items()}
    credits_ = len(await world.rows("SELECT 1 FROM mirrored_credits"))
    assert len(world.stripe.book.of("customer_balance_transaction")) == credits_ > 0
    assert await all_wrong(world, "acme") == []
