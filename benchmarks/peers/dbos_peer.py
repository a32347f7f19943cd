"""DBOS on an embedded Postgres of ours, with `fsync` on: worker processes that run `dbos_lives.py`."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from adapters.embedded.postgres import EmbeddedPostgres
from benchmarks.peers.environment import HERE
from benchmarks.peers.measuring import Run
from benchmarks.peers.programs import Program, program

WORKERS = 2  # DBOS is a library: one uses more cores by more processes of one's own


class Dbos:
    """Workers that share the lives evenly."""

    name = "dbos"
    lives = 1024

    def __init__(self, workers: Sequence[Program]) -> None:
        self._workers = workers

    async def run(self, lives: int, in_flight: int, *, doomed: bool) -> Run:
        """See `measuring.Peer`."""
        workers = self._workers[:in_flight]
        began = time.perf_counter()
        parts = zip(shares(lives, len(workers)), shares(in_flight, len(workers)), strict=True)
        for worker, (some, most) in zip(workers, parts, strict=True):
            await worker.tell(json.dumps({"lives": some, "in_flight": most, "doomed": doomed}))
        found = [json.loads(line)["latencies_ms"] for line in await asyncio.gather(*(one.hear() for one in workers))]
        latencies = [latency for each in found for latency in each]
        if len(latencies) != lives:
            raise workers[0].broken(f"and its like ended {len(latencies)} of {lives} lives as they should")
        return Run(time.perf_counter() - began, latencies)


def shares(total: int, among: int) -> list[int]:
    """`total` in so many nearly equal parts."""
    return [total // among + (number < total % among) for number in range(among)]


@asynccontextmanager
async def dbos(python: Path, folder: Path) -> AsyncIterator[Dbos]:
    """DBOS, running; all is ended with the context. `folder` is empty, and the account of Postgres may enter it."""
    postgres = EmbeddedPostgres(folder)
    await postgres.start()
    try:
        async with AsyncExitStack() as stack:
            workers = []
            for number in range(WORKERS):
                command = [str(python), str(HERE / "dbos_lives.py"), postgres.dsn, str(number)]
                log = folder / f"dbos-{number}.log"
                worker = await stack.enter_async_context(program(command, log, cwd=folder, speaks=True))
                await worker.hear()  # one after the other: the first makes the tables
                workers.append(worker)
            yield Dbos(workers)
    finally:
        await postgres.stop()
