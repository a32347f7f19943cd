"""`python -m benchmarks.figures.verdict`: from the verdict on one node to the committed compensation of its rental.

The rental runtime on a real Postgres with fsync on; machines and agents answer at once and in this process. Nodes that
are rented have fallen silent, and their SSH servers fail; a verdict is then passed on one after the other, in the
detector's own words, while nothing else is to be done. Measured is the time from there to the commit of the rental's
turn that stops its meter and records the compensations: two turns, the node's and the rental's. How late the verdict
itself comes is `verdict_late_ms` of `benchmarks.figures.fleet`.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from actors.node.messages import Verdict
from actors.node.state import Node
from amends.turn.messages import Envelope
from amends.values.limits import LimitValue
from amends.values.records import CompensationRow
from benchmarks.figures.printing import Report, main, say
from benchmarks.figures.servers import folder, postgres
from benchmarks.fleet import KEY, Fleet, enlist, until
from supervisors.boot.collector import spare_collector

NAMES: tuple[str, ...] = ("verdict_to_record_ms",)
COUNT = 30
# Silence and probes take seconds; no verdict comes by itself.
LIMITS: Mapping[str, LimitValue] = {
    "suspect_after_ms": 3000, "offline_after_ms": 3_600_000, "min_failed_probes": 1, "probe_timeout_ms": 300,
}  # fmt: skip


def _is_proved(fleet: Fleet, node_id: str) -> bool:
    node = fleet.core.pool.node(node_id)
    return isinstance(node, Node) and node.state == "suspect" and node.silence.failed >= 1


async def judged(fleet: Fleet, node_id: str) -> float:
    """Milliseconds from the verdict on this node to its rental's compensations."""
    recorded: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def follow(decision: Any) -> None:
        if decision.kind.name == "allocation" and any(isinstance(row, CompensationRow) for row in decision.rows):
            recorded.set_result(time.perf_counter())

    engine = fleet.core.kernel.engine
    engine.listeners.append(follow)
    began = time.perf_counter()
    engine.tell("node", node_id, Envelope(Verdict(fleet.core.pool.last_seen_us(node_id)), priority=True))
    took = (await recorded - began) * 1000
    engine.listeners.remove(follow)
    await until(lambda: engine.writer.idle)
    return took


async def measure(report: Report, scale: float) -> None:
    """See above."""
    names = [f"a-{number}" for number in range(max(3, int(COUNT * scale)))]
    async with folder() as base, postgres(base) as server, Fleet(server.dsn, LIMITS).running() as fleet:
        await enlist(fleet, names)
        for _ in names:
            await fleet.ask("cmd.allocation.request", account_id="acme", ssh_public_key=KEY, rate_uminor_per_hour=10**9)
        await until(lambda: fleet.count_of("allocation", "active") == len(names))
        spare_collector()
        say(f"{len(names)} nodes are rented")
        for machine in fleet.machines.machines.values():
            machine.up = False
        await until(lambda: all(_is_proved(fleet, name) for name in names))
        report("verdict_to_record_ms", [await judged(fleet, name) for name in names], "ms")
        assert fleet.count_of("node", "offline") == len(names)


if __name__ == "__main__":
    main(measure)
