"""`python -m benchmarks.hanging_site`: what the customers of three sites notice while the fourth one hangs.

A real runtime process with its Postgres and NATS; the machines of the three sites are a process of their own, real SSH
servers with agents. Those of the fourth go on beating, but their SSH accepts connections and never answers a word. Each
round is a time with all well and one while the fourth hangs; in both, customers of the fourth site leave one after the
other, and new ones come to all four. `request` is from the command to `active` by the runtime's clock, `notified` from
there to the customer's message in his hands, both of the three sites alone; of each figure the median of the rounds.
Prints one JSON object.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import uvloop
from nats.aio.client import Client

from adapters.embedded.ports import free_port
from adapters.simulated.fleet_client import Fleet
from adapters.simulated.ssh_node import SimulatedNode
from tests.acceptance.machine import CUSTOMER_KEY
from tests.acceptance.world import World, until

SITES, EACH = 3, 8
HANGING, LEAVING = 200, 160
EVERY_S = 0.15  # less than half of what two cores bear
CONFIG = """profile = "production"
callers = "open"
[timing]
setup_fail_limit = 1000000  # they are not to be taken out of service: the trouble shall last
ssh_step_timeout_ms = 20000
cleanup_backoff_ms = [1000, 5000]
cleanup_tries = 1000
"""
RENTAL = {"account_id": "acme", "ssh_public_key": CUSTOMER_KEY, "rate_uminor_per_hour": 249_000_000}
BEAT_S = 1.0
Figures = dict[str, float]


class Told:
    """When each allocation's customer was told what became of it."""

    def __init__(self) -> None:
        self._words: dict[str, asyncio.Future[int]] = {}

    async def listen(self, url: str) -> Client:
        """Follow the notifications as a customer's program would."""
        client = await nats.connect(url)

        async def heard(message: Any) -> None:
            word = self._word(json.loads(message.data)["entity"].partition(":")[2])
            if not word.done():  # one that was active may have failed since
                word.set_result(time.time_ns() // 1000)

        for kind in ("active", "failed"):
            await client.subscribe(f"amends.v1.ntf.account.*.allocation.{kind}", cb=heard)
        return client

    async def at_us(self, allocation_id: str) -> int:
        """Wait for the word."""
        return await self._word(allocation_id)

    def _word(self, allocation_id: str) -> "asyncio.Future[int]":
        return self._words.setdefault(allocation_id, asyncio.get_running_loop().create_future())


class FourthSite:
    """Real SSH servers at first; while they hang they accept connections and never answer. They beat all the time."""

    def __init__(self, world: World, count: int) -> None:
        self._world = world
        self.nodes = {f"hung-{number}": SimulatedNode() for number in range(count)}
        self._listeners: list[asyncio.Server] = []
        self._silent: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        """All up, beating and registered."""
        self._beats = asyncio.create_task(self._beat())
        for node_id, node in self.nodes.items():
            node.port = free_port()  # one that it can have again
            await node.start()
            ssh = {"host": "127.0.0.1", "port": node.port, "host_key": node.host_key}
            await self._world.ok("cmd.node.register", {"node_id": node_id, "ssh": ssh, "labels": {"site": "hung"}})

    async def _beat(self) -> None:
        for seq in itertools.count(1):
            for node_id in self.nodes:
                body = {"boot_id": f"boot-{node_id}", "seq": seq, "sent_us": time.time_ns() // 1000}
                await self._world.nats.publish(f"amends.v1.hb.{node_id}", json.dumps(body).encode())
            await asyncio.sleep(BEAT_S)

    async def hang(self) -> None:
        """From now on."""
        for node in self.nodes.values():
            await node.stop()
            self._listeners.append(await asyncio.start_server(self._accepted, "127.0.0.1", node.port))

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._silent.append(writer)
        while await reader.read(4096):
            pass
        writer.close()

    async def well(self) -> None:
        """As before."""
        for listener in self._listeners:
            listener.close()
        for writer in self._silent:
            writer.transport.abort()
        self._listeners, self._silent = [], []
        for node in self.nodes.values():
            await node.start()

    async def stop(self) -> None:
        """No beats and no SSH."""
        self._beats.cancel()
        await asyncio.gather(self._beats, return_exceptions=True)
        for node in self.nodes.values():
            await node.stop()


@asynccontextmanager
async def _world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="amends-bench-") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - the server of a root user runs under another account
        async with World(Path(folder) / "state", CONFIG).running() as world:
            await world.account("acme")
            yield world


async def _fleet(world: World) -> Fleet:
    fleet = await Fleet.spawn(
        nodes=SITES * EACH, nats_url=world.endpoints["nats_url"], client_key_line=world.endpoints["ssh_public_key"],
        state_dir=world.state_dir / "fleet", interval_ms=1000, sites=SITES,
    )  # fmt: skip
    for node_id, node in fleet.nodes.items():
        ssh = {"host": node["host"], "port": node["port"], "host_key": node["host_key"]}
        await world.ok("cmd.node.register", {"node_id": node_id, "ssh": ssh, "labels": node["labels"]})
    return fleet


class Customers:
    """One comes every `EVERY_S`, to each site in turn, is told that he has what he asked for, and goes."""

    def __init__(self, world: World, told: Told) -> None:
        self._world, self._told = world, told
        self._told_us: dict[str, int] = {}  # of the good sites

    async def come(self, rentals: int) -> Figures:
        """So many to each site; the figures of the good ones, in milliseconds."""
        good, theirs = [], []
        for _ in range(rentals):
            for number in range(SITES):
                good.append(asyncio.create_task(self._rent(f"site-{number + 1}")))
                await asyncio.sleep(EVERY_S)
            theirs.append(asyncio.create_task(self._rent("hung")))
            await asyncio.sleep(EVERY_S)
        await asyncio.gather(*good)
        for task in theirs:
            task.cancel()
        await asyncio.gather(*theirs, return_exceptions=True)
        query = """SELECT allocation_id, requested_us, activated_us FROM public_v1.allocation
                   WHERE allocation_id = ANY($1)"""
        rows = await self._world.rows(query, list(self._told_us))
        took = [(row["activated_us"] - row["requested_us"]) / 1000 for row in rows]
        notified = [(self._told_us[row["allocation_id"]] - row["activated_us"]) / 1000 for row in rows]
        return {**_quantiles("request", took), **_quantiles("notified", notified)}

    async def _rent(self, site: str) -> None:
        reply = await self._world.ok("cmd.allocation.request", {**RENTAL, "node_labels": {"site": site}})
        allocation_id = reply["allocation"]["allocation_id"]
        at_us = await self._told.at_us(allocation_id)
        if site != "hung":
            self._told_us[allocation_id] = at_us
        await self._world.release(allocation_id)


def _quantiles(what: str, values: list[float]) -> Figures:
    cuts = statistics.quantiles(values, n=100)
    return {f"{what}_p50_ms": cuts[49], f"{what}_p99_ms": cuts[98], f"{what}_worst_ms": max(values)}


async def _half(world: World, told: Told, site: FourthSite, rentals: int, *, hangs: bool) -> Figures:
    """So many rentals of each site; all machines of the fourth that are rented at the beginning are to be left."""
    rented = []
    for node_id in list(site.nodes)[:LEAVING]:
        rented.append(await world.request(node_id=node_id))
        await told.at_us(rented[-1])
    if hangs:
        await site.hang()
    leaving = asyncio.create_task(_leave(world, rented, rentals * (SITES + 1) * EVERY_S))
    try:
        return await Customers(world, told).come(rentals)
    finally:
        await leaving
        if hangs:
            await site.well()
        await until(lambda: _none_left(world), "all have ended and are clean", 120)


async def _leave(world: World, rented: list[str], within_s: float) -> None:
    for allocation_id in rented:
        await world.release(allocation_id)
        await asyncio.sleep(within_s / len(rented))


async def _none_left(world: World) -> bool:
    """Whether all have ended; one that was asked for at the end, and could be had then, is let go."""
    query = """SELECT allocation_id, state FROM public_v1.allocation
               WHERE cleanup_pending OR state NOT IN ('released', 'failed')"""
    left = await world.rows(query)
    for row in left:
        if row["state"] == "active":
            await world.release(row["allocation_id"])
    return not left


async def measure(rentals: int, rounds: int) -> dict[str, Any]:
    """So many rentals in each half of each round."""
    async with _world() as world:
        fleet, told, site = await _fleet(world), Told(), FourthSite(world, HANGING)
        client = await told.listen(world.endpoints["nats_url"])
        try:
            await site.start()
            for node_id in [*fleet.nodes, *site.nodes]:
                await world.node_is(node_id, "ready")
            await Customers(world, told).come(20)  # warm
            before, during = [], []
            for _ in range(rounds):
                before.append(await _half(world, told, site, rentals, hangs=False))
                during.append(await _half(world, told, site, rentals, hangs=True))
            found: dict[str, Any] = {"rentals": rentals, "rounds": rounds, "hanging": HANGING}
            for name in before[0]:
                usual, then = (statistics.median(each[name] for each in every) for every in (before, during))
                found[name] = {"usual": round(usual, 1), "hanging": round(then, 1), "times": round(then / usual, 2)}
            return found
        finally:
            await site.stop()
            await client.close()
            await fleet.close()


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hanging_site")
    parser.add_argument("--rentals", type=int, default=60, help="of each site, in each half of a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(json.dumps(uvloop.run(measure(options.rentals, options.rounds))))


if __name__ == "__main__":
    main()
