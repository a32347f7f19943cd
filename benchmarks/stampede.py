"""Everything due at once: what a start after a night without Postgres finds, and whether its holder keeps the lease."""

import asyncio
import time

import asyncpg

from adapters.postgres.lease import Lease
from amends.kernel import Kernel

TICK_S = 0.01
_ALL_DUE = """
    UPDATE actors SET due_us = 1, body = body || '{"timers": {"wake": 1}}'::jsonb
    WHERE kind = 'life' AND id IN (SELECT id FROM actors WHERE kind = 'life' LIMIT $1)
"""


async def all_due(dsn: str, count: int) -> int:
    """Give `count` actors of a stopped kernel a timer that has been due for long; returns how many have one."""
    connection = await asyncpg.connect(dsn)
    try:
        epoch = await connection.fetchval("SELECT epoch FROM journal_head")
        await connection.execute("SELECT set_config('amends.epoch', $1, false)", str(epoch))
        done = await connection.execute(_ALL_DUE, count, timeout=600)
        return int(done.rpartition(" ")[2])
    finally:
        await connection.close()


class Watch:
    """How long the loop stood still, how old the lease became, and whether another could have had it."""

    def __init__(self, it: Kernel, dsn: str) -> None:
        self._it, self._other = it, Lease(dsn, "standby")
        self.stall_s = self.lease_age_s = 0.0
        self.taken = False

    async def run(self) -> None:
        """Watch until cancelled."""
        ticking = asyncio.create_task(self._tick())
        try:
            while not self.taken:
                self.taken = await self._other.acquire_now() is not None
                await asyncio.sleep(0.5)
        finally:
            ticking.cancel()
            await self._other.aclose()

    async def _tick(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK_S)
            self.stall_s = max(self.stall_s, time.monotonic() - before - TICK_S)
            self.lease_age_s = max(self.lease_age_s, self._it.lease.age_s)


async def stampede(it: Kernel, dsn: str) -> tuple[float, Watch]:
    """Wait until nothing is due any more; returns the seconds it took, and what was seen meanwhile."""
    watch = Watch(it, dsn)
    task = asyncio.create_task(watch.run())
    began = time.perf_counter()
    while len(it.engine.timers):
        await it.writer.drained()
        await asyncio.sleep(0.05)
    took = time.perf_counter() - began
    task.cancel()
    await asyncio.wait({task})
    return took, watch
