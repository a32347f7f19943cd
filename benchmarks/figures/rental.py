"""`python -m benchmarks.figures.rental`: 200 customers ask for a machine at once.

The runtime's program with its Postgres and nats-server, under production's limits; 200 simulated machines in a process
of their own: real SSH servers, logged in to anew by every round, and real agents. Measured is the time from the
command's leaving the client to the commit that makes the rental active, by the machine's clock; the client, the runtime
and the machines share its cores. What a shell on a machine takes is left out: simulated ones have none.
"""

import asyncio
import statistics
from collections.abc import Sequence

from benchmarks.figures.platform import Platform, platform
from benchmarks.figures.printing import Report, main, say

NAMES: tuple[str, ...] = ("rental_ms_p99_200", "rental_ms_p50_200")
AT_ONCE, ROUNDS = 200, 3
FORGOTTEN_S = 6.0  # connections to nodes are kept for 5 s: every round begins without any
ACTIVATED = """SELECT allocation_id, (body #>> '{rental,activated_us}')::bigint AS at_us FROM allocations
               WHERE allocation_id = ANY($1)"""


async def customers(it: Platform, count: int) -> list[float]:
    """So many at once; milliseconds until each has what he asked for. Then they leave."""
    asked = dict(await asyncio.gather(*(it.rent() for _ in range(count))))
    await it.until("SELECT count(*) FROM allocations WHERE state = 'active'", count)
    rows = await it.sql.fetch(ACTIVATED, list(asked))
    await it.all_of(it.ask("cmd.allocation.release", allocation_id=name) for name in asked)
    await it.until("SELECT count(*) FROM allocations WHERE live", 0)
    return [(row["at_us"] - asked[row["allocation_id"]]) / 1000 for row in rows]


def cut(values: Sequence[float], percent: int) -> float:
    """A percentile."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


async def measure(report: Report, scale: float) -> None:
    """See above."""
    count = max(2, int(AT_ONCE * scale))
    async with platform(count) as it:
        say(f"{count} machines are in service")
        rounds = []
        for _ in range(1 + ROUNDS):  # the first is to warm up
            await asyncio.sleep(FORGOTTEN_S)
            rounds.append(await customers(it, count))
            say(f"p50 {cut(rounds[-1], 50):.0f} ms, p99 {cut(rounds[-1], 99):.0f} ms")
        report("rental_ms_p99_200", [cut(each, 99) for each in rounds[1:]], "ms")
        report("rental_ms_p50_200", [cut(each, 50) for each in rounds[1:]], "ms")


if __name__ == "__main__":
    main(measure)
