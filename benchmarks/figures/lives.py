"""`python -m benchmarks.figures.lives`: three-step lives with all that a runtime has beside it.

Postgres with fsync, a real nats-server that flushes each acknowledgement, an exporter to a receiver that decodes each
span: all on this machine's cores, as the callers are. A life has three durable steps, audit entries, and two events or
(undone) three; its steps do nothing. What is measured ends with the last life; what relay and exporter have left then
is drained before the next run, and timed.

- `lives_happy_512`, `lives_compensated_512`: lives a second with 512 in flight.
- `backlog_drain_s`: from the end of the last life until all events and spans have been acknowledged; of all runs.
- `commits_per_life_512`, `wal_bytes_per_life`: of lives that are done, 512 in flight.
- `life_us_…`, `undone_us_…`: processor time for each of those lives, of the runtime (with the callers), Postgres,
  nats-server, the exporter and the receiver.
- `life_ms_p50_1`, `life_ms_p99_1`: of lives that are done, one at a time; p99 of all of them together.
"""

import statistics
from collections.abc import Sequence
from typing import Any, cast

import asyncpg

from amends.kernel import Kernel
from benchmarks.everything import Surroundings, surroundings
from benchmarks.figures.printing import Report, main, say
from benchmarks.running import latencies, lives

PROCESSES = ("runtime", "postgres", "nats", "receiver", "exporter")
NAMES: tuple[str, ...] = (
    "lives_happy_512", "commits_per_life_512", "wal_bytes_per_life", *(f"life_us_{name}" for name in PROCESSES),
    "lives_compensated_512", *(f"undone_us_{name}" for name in PROCESSES), "backlog_drain_s", "life_ms_p50_1",
    "life_ms_p99_1",
)  # fmt: skip
RUNS, LIVES, DOOMED, ALONE, IN_FLIGHT = 3, 10_000, 5_000, 400, 512
LOG = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"


async def measure(report: Report, scale: float) -> None:
    """See above."""
    async with surroundings() as around, around.kernel() as it:
        looking = await asyncpg.connect(around.dsn)
        try:
            await _at_512(around, it, looking, report, scale)
        finally:
            await looking.close()
        alone = [await latencies(it, max(20, int(ALONE * scale)), 1) for _ in range(RUNS)]
    report("life_ms_p50_1", [statistics.median(run) * 1000 for run in alone], "ms")
    report("life_ms_p99_1", [_p99([each for run in alone for each in run]) * 1000], "ms")


async def _at_512(
    around: Surroundings, it: Kernel, looking: "asyncpg.Connection[Any]", report: Report, scale: float
) -> None:
    in_flight = min(IN_FLIGHT, max(16, int(DOOMED * scale)))
    await lives(it, in_flight * 2, in_flight, doomed=False)  # plans are made, statements prepared
    drained = [await around.drained_s(it)]
    for name, total, doomed in (("happy", LIVES, False), ("compensated", DOOMED, True)):
        count = max(in_flight, int(total * scale))
        rates, commits, log = list[float](), list[float](), list[float]()
        used = around.used_s()
        for _ in range(RUNS):
            began, before = it.writer.commits, cast("int", await looking.fetchval(LOG))
            rates.append((await lives(it, count, in_flight, doomed=doomed))[0])
            commits.append((it.writer.commits - began) / count)
            drained.append(await around.drained_s(it))
            log.append((cast("int", await looking.fetchval(LOG)) - before) / count)
            say(f"lives: {rates[-1]:.0f} {name} a second, drained within {drained[-1]:.2f} s")
        report(f"lives_{name}_512", rates, "/s")
        if not doomed:
            report("commits_per_life_512", commits, "commits")
            report("wal_bytes_per_life", log, "B")
        for process, now in around.used_s().items():
            spent = (now - used[process]) / (RUNS * count) * 1e6
            report(f"{'undone' if doomed else 'life'}_us_{process}", [spent], "us")
    report("backlog_drain_s", [max(drained)], "s")


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


if __name__ == "__main__":
    main(measure)
