"""`python -m benchmarks.figures.fleet`: heartbeats and verdicts of 100 000 nodes.

The rental runtime with a real Postgres and a real nats-server, its connections those of the product; the agents are one
process that writes to the broker what it made before. One node was registered by the whole road, the others are its
committed row copied with names and keys of their own. Limits are those of production; at a smaller scale the nodes are
fewer and all times shorter. SSH answers at once and in this process; nodes that are heard are not probed now and then
(`reprobe_ms`), which at this number would be 50 probes a second.

- `heartbeats_per_s`: from the broker into the detector, with about 20 000 on their way at any time and none dropped.
- `detector_core_percent`: processor time of a runtime that does nothing else, each node heard once in an interval, by
  that time. The beats are handed to the detector by this process, so that it, its checkpoints and the runtime at rest
  are in it, and neither broker nor decoding.
- `watching_core_percent`: the same, the beats through the broker.
- `verdict_late_ms_p99`, `verdict_late_ms_max`: some nodes fall silent, one after the other, and their SSH servers with
  them; from the end of `offline_after_ms` after the last beat to the commit that sends the node offline.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from actors.node.state import Node
from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.postgres import EmbeddedPostgres
from adapters.nats.agents import Heartbeats
from amends.values.limits import LimitValue
from benchmarks.figures.beats import boot_of
from benchmarks.figures.printing import Report, main, say
from benchmarks.figures.seeding import NODES, seed
from benchmarks.figures.servers import Child, child, folder, postgres
from benchmarks.fleet import Fleet, enlist, until
from supervisors.boot.collector import spare_collector
from supervisors.boot.links import Links
from supervisors.closing import Parts
from supervisors.settings import Settings
from supervisors.timing import timing

NAMES: tuple[str, ...] = (
    "heartbeats_per_s", "detector_core_percent", "watching_core_percent", "verdict_late_ms_p99", "verdict_late_ms_max",
)  # fmt: skip
COUNT, RUNS = 100_000, 3
FLOOD, AT_ONCE, ON_THEIR_WAY = 400_000, 5_000, 20_000
FALLING, FALLS_PER_S = 120, 8.0  # fewer a second than verdicts are passed
TIMES = (
    "heartbeat_interval_ms", "suspect_after_ms", "offline_after_ms", "probe_timeout_ms", "last_seen_checkpoint_ms",
)  # fmt: skip
STEP_S, NEVER_MS = 0.01, 86_400_000
ORIGINAL = "a-0"


class Watched(Fleet):
    """A runtime that hears its nodes through the broker; `b-1` … `b-<count>` besides by hand."""

    def __init__(self, dsn: str, url: str, limits: dict[str, LimitValue], count: int) -> None:
        super().__init__(dsn, limits)
        self._links, self._parts = Links(Settings(), [url], 1, "bench"), Parts()
        self._nodes = [(f"b-{number}", boot_of(number)) for number in range(1, count + 1)]
        self.interval_s = self.core.kernel.limits("heartbeat_interval_ms") / 1000
        self.offline_us = self.core.kernel.limits.us("offline_after_ms")
        self.by_hand, self.count = True, count
        self.silent: set[int] = set()  # numbers of those that have fallen silent, from 0

    async def start(self) -> None:
        """As the product does: connections, the fleet, then the heartbeats."""
        await self._links.open(self._parts)
        await super().start()
        self.heartbeats = Heartbeats(self.core.detector.heard_all)
        await self._links.open_heartbeats(self._parts, self.heartbeats)
        await self._links.listen(self.heartbeats, self.core.detector)
        self.tasks.append(asyncio.create_task(self._links.send_canary(self.interval_s)))

    async def stop(self) -> None:
        """The end."""
        try:
            await super().stop()
        finally:
            await self._parts.close()

    def linked(self) -> bool:
        """See `Fleet.linked`."""
        return self._links.up()

    async def beat(self) -> None:
        """All nodes evenly through the interval, those that have fallen excepted; the first of all always."""
        began, sent, count, detector = time.monotonic(), 0, len(self._nodes), self.core.detector
        while True:
            due = int((time.monotonic() - began) * count / self.interval_s)
            if self.by_hand:
                detector.heard_all(self._nodes[n % count] for n in range(sent, due) if n % count not in self.silent)
            sent = due
            detector.heard(ORIGINAL, f"boot-{ORIGINAL}")
            await asyncio.sleep(STEP_S)


async def flood(fleet: Watched, agents: Child, total: int) -> float:
    """Heartbeats a second that reach the detector."""
    beats = fleet.heartbeats
    began, first, sent = time.perf_counter(), beats.received, 0
    while (done := beats.received - first) < total:
        while sent < total and sent - done < ON_THEIR_WAY:
            agents.tell(f"send {AT_ONCE}")
            sent += AT_ONCE
        await asyncio.sleep(0.002)
    took = time.perf_counter() - began
    assert (beats.dropped, beats.malformed, fleet.core.detector.unknown) == (0, 0, 0), "all were heard"
    return sent / took


async def busy_percent(seconds: float) -> float:
    """Of a core, how much this process uses in that time."""
    began, before = time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    return 100 * (time.process_time() - before) / (time.monotonic() - began)


async def fall(fleet: Watched, count: int, per_s: float) -> None:
    """One node after the other falls silent, each as long after its beat: their last ones are evenly apart."""
    for number in range(count):
        await asyncio.sleep(1 / per_s)
        rounds, part = divmod(number / per_s, fleet.interval_s)
        fleet.silent.add(int(part / fleet.interval_s * fleet.count) + int(rounds))


class Verdicts:
    """How late each committed verdict came, in milliseconds."""

    def __init__(self, fleet: Watched) -> None:
        self.late_ms: list[float] = []
        self._fleet, self._engine = fleet, fleet.core.kernel.engine
        self._engine.listeners.append(self._follow)

    def _follow(self, decision: Any) -> None:
        if isinstance(decision.state, Node) and decision.state.state == "offline" and decision.before is not None:
            due_us = self._fleet.core.pool.last_seen_us(decision.id) + self._fleet.offline_us
            self.late_ms.append((self._engine.now_us() - due_us) / 1000)


@asynccontextmanager
async def broker(state: Path) -> AsyncIterator[EmbeddedNats]:
    """An embedded nats-server."""
    server = EmbeddedNats(state)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def filled(server: EmbeddedPostgres, count: int) -> None:
    """A node in service, and so many copies of it."""
    fleet = Fleet(server.dsn, {})
    async with fleet.running():
        await enlist(fleet, [ORIGINAL])
    await seed(server, "nodes", NODES, ORIGINAL, count)


def limits_at(scale: float) -> dict[str, LimitValue]:
    """Production's, its times shorter at a smaller scale."""
    usual, by = timing("production", {}), max(0.1, min(1.0, scale))
    found: dict[str, LimitValue] = {"reprobe_ms": NEVER_MS}
    for name in TIMES:
        value = usual[name]
        assert isinstance(value, int)
        found[name] = int(value * by)
    return found


async def measure(report: Report, scale: float) -> None:
    """See above."""
    count, falling = int(COUNT * scale), max(5, int(FALLING * scale))
    async with folder() as base, postgres(base) as server, broker(base) as nats:
        await filled(server, count)
        say(f"{count} nodes are stored")
        fleet = Watched(server.dsn, nats.url, limits_at(scale), count)
        async with fleet.running(), child("benchmarks.figures.beats", nats.url, str(count)) as agents:
            spare_collector()
            await agents.heard()
            say("the runtime serves")
            await asyncio.sleep(fleet.interval_s)  # all are heard once, which their nodes are told
            await until(lambda: fleet.core.kernel.writer.idle)
            total = max(AT_ONCE, int(FLOOD * scale)) // AT_ONCE * AT_ONCE
            report("heartbeats_per_s", [await flood(fleet, agents, total) for _ in range(RUNS)], "/s")
            await _watch(fleet, agents, report, falling)


async def _watch(fleet: Watched, agents: Child, report: Report, falling: int) -> None:
    verdicts = Verdicts(fleet)
    quiet = [await busy_percent(fleet.interval_s) for _ in range(RUNS)]
    report("detector_core_percent", quiet, "%")
    await fall(fleet, falling, FALLS_PER_S)
    agents.tell(f"every {fleet.interval_s} but {','.join(map(str, fleet.silent))}")
    await asyncio.sleep(fleet.interval_s / 2)
    fleet.by_hand = False
    say(f"{falling} nodes have fallen silent")
    report("watching_core_percent", [await busy_percent(fleet.interval_s) for _ in range(RUNS)], "%")
    await until(lambda: len(verdicts.late_ms) == falling, 2 * fleet.offline_us / 1e6)
    assert fleet.heartbeats.dropped == 0
    assert fleet.count_of("node", "suspect") == 0, "nobody else is silent"
    report("verdict_late_ms_p99", [_p99(verdicts.late_ms)], "ms")
    report("verdict_late_ms_max", [max(verdicts.late_ms)], "ms")


def _p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


if __name__ == "__main__":
    main(measure)
