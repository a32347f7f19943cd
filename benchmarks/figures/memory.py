"""`python -m benchmarks.figures.memory`: many idle actors: what each takes, their load, and what they cost others.

A million active allocations are in a real Postgres: one was rented by the whole road, the others are its committed row
copied with names and keys of their own. Their assignments, meters and nodes are not copied: actors are counted here.

- `bytes_per_actor`: resident memory of a fresh process after its start less before, by actors; indexes, timers, freed
  pages and what a start takes anyhow included. Machines, agents and broker answer in the process, which has no NATS.
- `load_1m_s`: the start of that process from asking for the lease until it serves, said for a million. Python's imports
  and the servers' start are left out.
- `life_cost_growth`: processor time of a rental, from its request to its cleaned release, with the million beside it
  by that with a thousand; of the runtime and its Postgres together, in turns of the same minute.
"""

import asyncio
import gc
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop

from actors.allocation.state import Allocation
from adapters.embedded.postgres import EmbeddedPostgres
from benchmarks.figures.printing import Report, main, say
from benchmarks.figures.seeding import ALLOCATIONS, FILLING, seed
from benchmarks.figures.servers import Child, answer, child, folder, postgres, words
from benchmarks.fleet import KEY, Fleet, enlist, until
from supervisors.boot.collector import spare_collector

NAMES: tuple[str, ...] = ("bytes_per_actor", "load_1m_s", "life_cost_growth")
MANY, FEW, STARTS = 1_000_000, 1_000, 2
MACHINES = [f"a-{number}" for number in range(16)]  # as many lives at once
ROUNDS, LIVES = 15, 96
MODULE = "benchmarks.figures.memory"
TICKS = os.sysconf("SC_CLK_TCK")


# --- the process that has them all in memory -----------------------------------------------------------


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def hold(dsn: str) -> None:
    """Start, say what that took, then live as many lives as one is told."""
    gc.collect()
    before, began = _rss(), time.perf_counter()
    fleet = Fleet(dsn, {})
    for name in MACHINES:
        fleet.machines.add(name)
    async with fleet.running():
        took = time.perf_counter() - began
        spare_collector()
        loaded = fleet.core.kernel.loaded
        answer({"loaded": loaded, "took_s": took, "bytes": (_rss() - before) / loaded})
        async for word in words():
            answer(await live(fleet, int(word)))
            fleet.forget()


async def live(fleet: Fleet, count: int) -> float:
    """So many rentals, on all machines at once; the seconds of this process that each took."""
    began, states = time.process_time(), States(fleet)

    async def lives() -> None:
        for _ in range(count // len(MACHINES)):
            await _life(fleet, states)

    await asyncio.gather(*(lives() for _ in MACHINES))
    states.close()
    await fleet.core.kernel.writer.drained()
    return (time.process_time() - began) / (count // len(MACHINES) * len(MACHINES))


class States:
    """Waits for what committed turns make of allocations."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._listeners = fleet, fleet.core.kernel.engine.listeners
        self._waiting: dict[str, tuple[Callable[[Allocation], bool], asyncio.Event]] = {}
        self._listeners.append(self._follow)

    def _follow(self, decision: Any) -> None:
        found = self._waiting.get(decision.id)
        if found is not None and isinstance(decision.state, Allocation) and found[0](decision.state):
            found[1].set()

    async def come(self, allocation_id: str, holds: Callable[[Allocation], bool]) -> None:
        """It is so, or comes to be so."""
        known = self._fleet.core.pool.allocation(allocation_id)
        if known is None or not holds(known):
            event = asyncio.Event()
            self._waiting[allocation_id] = (holds, event)
            await event.wait()
            del self._waiting[allocation_id]

    def close(self) -> None:
        """Nobody waits any more."""
        self._listeners.remove(self._follow)


async def _life(fleet: Fleet, states: States) -> None:
    reply = await fleet.ask(
        "cmd.allocation.request", account_id="acme", ssh_public_key=KEY, node_labels={"site": "a"},
        rate_uminor_per_hour=249_000_000,
    )  # fmt: skip
    name = reply["allocation"]["allocation_id"]
    await states.come(name, lambda found: found.state == "active")
    cleaned = asyncio.create_task(
        states.come(name, lambda found: found.state == "released" and not found.cleanup_pending)
    )
    await fleet.ask("cmd.allocation.release", allocation_id=name)
    await cleaned


def _is_clean(found: Allocation) -> bool:
    return found.state == "released" and not found.cleanup_pending


# --- the benchmark ------------------------------------------------------------------------------------


async def filled(server: EmbeddedPostgres, count: int) -> None:
    """A fleet with one rental, and so many copies of it."""
    fleet = Fleet(server.dsn, {})
    async with fleet.running():
        await enlist(fleet, [*MACHINES, "z-0"])
        reply = await fleet.ask(
            "cmd.allocation.request", account_id="acme", ssh_public_key=KEY, node_labels={"site": "z"},
            rate_uminor_per_hour=249_000_000,
        )  # fmt: skip
        await until(lambda: fleet.count_of("allocation", "active") == 1)
    await seed(server, "allocations", ALLOCATIONS, reply["allocation"]["allocation_id"], count)


def _spent_s(postmaster: int) -> float:
    """Processor time of a Postgres: of its processes, and of those that have ended."""
    found = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(stat.parent.name) == postmaster:
            found += sum(map(int, fields[11:15]))
        elif int(fields[1]) == postmaster:
            found += sum(map(int, fields[11:13]))
    return found / TICKS


async def _cost_s(server: EmbeddedPostgres, holder: Child, lives: int) -> float:
    """Of a life, in runtime and Postgres together."""
    before = _spent_s(server.pid)
    own: float = await holder.ask(str(lives))
    return own + (_spent_s(server.pid) - before) / lives


async def measure(report: Report, scale: float) -> None:
    """See above."""
    counts, lives = [max(16, int(each * scale)) for each in (MANY, FEW)], max(len(MACHINES), int(LIVES * scale))
    async with folder() as base, AsyncExitStack() as stack:
        servers, holders = [], list[Child]()
        for count in counts:
            began = time.monotonic()
            async with postgres(base / str(count), FILLING) as server:
                await filled(server, count)
            servers.append(await stack.enter_async_context(postgres(base / str(count))))
            say(f"{count} allocations are stored: {time.monotonic() - began:.1f} s")
        starts = []
        for _ in range(STARTS - 1):
            async with child(MODULE, "hold", servers[0].dsn) as holder:
                starts.append(await holder.heard())
        for server in servers:
            holders.append(await stack.enter_async_context(child(MODULE, "hold", server.dsn)))
            starts.append(await holders[-1].heard())
        say(f"{starts}")
        report("bytes_per_actor", [start["bytes"] for start in starts[:-1]], "B")
        report("load_1m_s", [start["took_s"] * MANY / start["loaded"] for start in starts[:-1]], "s")
        growth = []
        for _ in range(1 + max(2, int(ROUNDS * scale))):  # the first is to warm up
            many, few = [await _cost_s(*each, lives) for each in zip(servers, holders, strict=True)]
            say(f"a life: {many * 1000:.2f} ms beside {counts[0]}, {few * 1000:.2f} ms beside {counts[1]}")
            growth.append(many / few)
        report("life_cost_growth", growth[1:], "times")


if __name__ == "__main__":
    if sys.argv[1:2] == ["hold"]:
        uvloop.run(hold(sys.argv[2]))
    else:
        main(measure)
