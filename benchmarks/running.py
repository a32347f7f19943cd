"""A kernel with the benchmark's domain on a real database, and closed loops of turns and lives through it."""

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from adapters.postgres.journal import journal_of
from adapters.postgres.lease import Lease
from amends.kernel import Kernel
from amends.ports.bus import BatchPublisher, Outgoing, Published
from amends.runtime.trunk import ChildSpec, Supervisor, SupervisorSpec
from amends.turn.messages import Envelope
from amends.values import ids
from amends.values.limits import Limits
from benchmarks.lives import BENCH, Begin, BenchRunner, Touch
from supervisors.boot.collector import spare_collector
from supervisors.timing import timing


class NoBroker:
    """Acknowledges at once: the broker is not what is measured."""

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        """Acknowledge."""
        return Published("ok")

    async def publish_together(self, messages: Sequence[Outgoing]) -> Published:
        """Acknowledge them."""
        return Published("ok")


NO_BROKER = NoBroker()


@asynccontextmanager
async def kernel(
    dsn: str, publisher: BatchPublisher = NO_BROKER, beside: "Callable[[Kernel], Sequence[ChildSpec]]" = lambda it: ()
) -> AsyncIterator[Kernel]:
    """A kernel with the benchmark's domain, running; `beside`: the services that run with it."""
    lease = Lease(dsn, "bench")
    await lease.acquire()
    await lease.prepare("bench", "0", time.time_ns() // 1000)
    it = Kernel((BENCH,), Limits(timing("production", {})))
    await it.open(journal_of(dsn, lease.epoch, it.domains, role=lease.role), lease)
    await it.load()
    it.wire({"bench": BenchRunner(), "bus": BenchRunner()}, publisher)
    await it.resume()
    tree = Supervisor(SupervisorSpec(name="bench", children=[*it.children(), *beside(it)]))
    task = asyncio.create_task(tree.run())
    await tree.started.wait()
    spare_collector()
    try:
        yield it
    finally:
        await it.drain(10)
        task.cancel()
        await asyncio.wait({task})
        await it.aclose()


async def closed_loop(
    it: Kernel, total: int, in_flight: int, start: Callable[[int, Callable[[], None]], None]
) -> list[float]:
    """Keep `in_flight` operations going until `total` are done; their latencies in seconds."""
    latencies: list[float] = []
    done = asyncio.Event()
    begun = 0

    def next_one() -> None:
        nonlocal begun
        if begun >= total:
            return
        begun += 1
        at = time.perf_counter()

        def ended() -> None:
            latencies.append(time.perf_counter() - at)
            if len(latencies) == total:
                done.set()
            else:
                next_one()

        start(begun, ended)

    for _ in range(in_flight):
        next_one()
    await done.wait()
    return latencies


async def turns(it: Kernel, total: int, in_flight: int) -> tuple[float, float]:
    """Durable turns a second, and the median latency in milliseconds."""
    names = [ids.type_id("evt", time.time_ns() // 1000, os.urandom(10)) for _ in range(in_flight)]

    def start(number: int, ended: Callable[[], None]) -> None:
        name = names[number % in_flight]
        it.engine.tell("life", name, Envelope(Touch(), priority=True, fresh=True, done=lambda ok: ended()))

    began = time.perf_counter()
    latencies = await closed_loop(it, total, in_flight, start)
    return total / (time.perf_counter() - began), statistics.median(latencies) * 1000


async def latencies(it: Kernel, total: int, in_flight: int, *, doomed: bool = False) -> list[float]:
    """How long each of so many three-step lives took, in seconds."""
    waiting: dict[str, Callable[[], None]] = {}

    def follow(decision: Any) -> None:
        if decision.state is not None and decision.state.state in ("done", "undone"):
            ended = waiting.pop(decision.id, None)
            if ended is not None:
                ended()

    it.engine.listeners.append(follow)

    def start(number: int, ended: Callable[[], None]) -> None:
        name = ids.type_id("evt", time.time_ns() // 1000, os.urandom(10))
        waiting[name] = ended
        it.engine.tell("life", name, Envelope(Begin(doomed), priority=True, fresh=True))

    found = await closed_loop(it, total, in_flight, start)
    it.engine.listeners.remove(follow)
    return found


async def lives(it: Kernel, total: int, in_flight: int, *, doomed: bool) -> tuple[float, float]:
    """Three-step lives a second (doomed ones are compensated), and their median latency in milliseconds."""
    began = time.perf_counter()
    found = await latencies(it, total, in_flight, doomed=doomed)
    return total / (time.perf_counter() - began), statistics.median(found) * 1000
