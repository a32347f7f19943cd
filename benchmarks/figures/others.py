"""`python -m benchmarks.figures.others`: the kernel with Postgres alone, matching, timers due at once.

- `turns_…`, `lives_…`, `compensated_…`: with 512 in flight and with one, a broker that acknowledges at once and no
  exporter: what the kernel and Postgres can do. The rate a second, and `…_latency`, the median in ms.
- `match_request_100000`, `match_node_100000`: one rental's node among 100 000, and one node's rental, in µs.
- `kept_replies_1ms_away`: kept replies looked up a second, with Postgres a millisecond away.
- `due_at_once…`: timers that were all due at the start: fired a second, the loop's longest stall, the oldest lease (at
  5 000 ms nothing may begin), and take-overs (none may be).
"""

import os
import time
from collections.abc import Callable

from amends.kernel import Kernel
from amends.turn.messages import Envelope
from amends.values import ids
from benchmarks.figures.printing import Report, main
from benchmarks.figures.servers import folder, postgres
from benchmarks.lives import Touch
from benchmarks.requests import FREE, kept_replies, matching
from benchmarks.running import closed_loop, kernel, lives, turns
from benchmarks.stampede import all_due, stampede

RUNS = 3
NAMES: tuple[str, ...] = (
    "match_request_100000", "match_node_100000", "kept_replies_1ms_away",
    *(f"{name}{kind}" for name in ("turns_512", "turns_1", "lives_512", "lives_1", "compensated_512", "compensated_1")
      for kind in ("", "_latency")),
    "due_at_once", "due_at_once_stall", "due_at_once_lease_age", "due_at_once_take_overs",
)  # fmt: skip


async def measure(report: Report, scale: float) -> None:
    """See above."""
    matched = zip(
        *(matching(max(10, int(1000 * scale)), max(200, int(FREE * scale))) for _ in range(RUNS)), strict=True
    )
    for name, values in zip(NAMES[:2], matched, strict=True):
        report(name, values, "us")
    looked_up = [await kept_replies(max(1_000, int(50_000 * scale))) for _ in range(RUNS)]
    report("kept_replies_1ms_away", looked_up, "/s")
    async with folder() as state, postgres(state) as server:
        async with kernel(server.dsn) as it:
            for name, total in (("turns", 20_000), ("lives", 5_000), ("compensated", 3_000)):
                for most in (512, 1):
                    await _throughput(it, name, int(total * scale), most, report)
            await _idle_actors(it, int(100_000 * scale))
        due = await all_due(server.dsn, int(100_000 * scale))
        async with kernel(server.dsn) as it:
            took, watch = await stampede(it, server.dsn)
        report("due_at_once", [due / took], "/s")
        report("due_at_once_stall", [watch.stall_s * 1000], "ms")
        report("due_at_once_lease_age", [watch.lease_age_s * 1000], "ms")
        report("due_at_once_take_overs", [float(watch.taken)], "times")


async def _throughput(it: Kernel, name: str, total: int, most: int, report: Report) -> None:
    in_flight = min(most, total)
    total = total if most > 1 else max(10, total // 50)

    async def once() -> tuple[float, float]:
        if name == "turns":
            return await turns(it, total, in_flight)
        return await lives(it, total, in_flight, doomed=name == "compensated")

    results = [await once() for _ in range(RUNS)]
    report(f"{name}_{most}", [rate for rate, _ in results], "/s")
    report(f"{name}_{most}_latency", [latency for _, latency in results], "ms")


async def _idle_actors(it: Kernel, count: int) -> None:
    def start(number: int, ended: Callable[[], None]) -> None:
        name = ids.type_id("evt", time.time_ns() // 1000, os.urandom(10))
        it.engine.tell("life", name, Envelope(Touch(), priority=True, fresh=True, done=lambda ok: ended()))

    await closed_loop(it, count, min(512, count), start)


if __name__ == "__main__":
    main(measure)
