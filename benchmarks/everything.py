"""The benchmark's kernel with all beside it that a runtime has: a real nats-server, and an exporter to a real receiver.

async with surroundings() as around, around.kernel() as it: …
"""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.postgres import EmbeddedPostgres
from adapters.nats import connection
from adapters.nats.publishing import JetStreamPublisher
from adapters.otel.environment import Target
from adapters.postgres.journal import PostgresJournal
from amends.kernel import Kernel
from amends.runtime.trunk import ChildSpec
from benchmarks.figures.processor import child_that_runs, used_s
from benchmarks.receiver import Receiver, receiver
from benchmarks.running import kernel
from supervisors.boot.spans import SpanExport

DRAINED_WITHIN_S = 300.0


class Surroundings:
    """The servers of one measurement."""

    export: SpanExport  # of the kernel that runs

    def __init__(self, postgres: EmbeddedPostgres, nats: EmbeddedNats, receiver: Receiver) -> None:
        self.dsn, self.nats_url, self.receiver_url = postgres.dsn, nats.url, receiver.url
        self._pids = {"runtime": os.getpid(), "postgres": postgres.pid, "nats": nats.pid, "receiver": receiver.pid}

    def used_s(self) -> dict[str, float]:
        """Processor time by now, of each process; the callers' is the runtime's."""
        return used_s({**self._pids, "exporter": child_that_runs("supervisors.boot.exporting")})

    @asynccontextmanager
    async def kernel(self) -> AsyncIterator[Kernel]:
        """A kernel with relay and exporter."""
        client = await connection.connect([self.nats_url], name="bench")

        def beside(it: Kernel) -> Sequence[ChildSpec]:
            assert isinstance(it.journal, PostgresJournal)
            self.export = SpanExport(it.journal, self.dsn, "", Target(f"{self.receiver_url}/v1/traces"))
            it.engine.listeners.append(self.export.follow)
            return [self.export.child()]

        publisher = JetStreamPublisher(client)
        await publisher.create_streams()
        try:
            async with kernel(self.dsn, publisher, beside) as it:
                yield it
        finally:
            await connection.close(client)

    async def spans_in_all(self) -> int:
        """How many there are by now."""
        looking = await asyncpg.connect(self.dsn)
        try:
            return int(await looking.fetchval("SELECT count(*) FROM public_v1.span"))
        finally:
            await looking.close()

    async def drained_s(self, it: Kernel) -> float:
        """How long relay and exporter take until nothing is left of what has committed."""
        began = time.perf_counter()
        async with asyncio.timeout(DRAINED_WITHIN_S):
            while it.relay.pending or self.export.cursor < it.writer.head.seq:  # noqa: ASYNC110 - looks from outside
                await asyncio.sleep(0.02)
        return time.perf_counter() - began


@asynccontextmanager
async def surroundings() -> AsyncIterator[Surroundings]:
    """Servers with nothing in them."""
    with tempfile.TemporaryDirectory(prefix="amends-bench-") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - the server of a root user runs under another account
        postgres, nats = EmbeddedPostgres(Path(folder)), EmbeddedNats(Path(folder))
        await postgres.start()
        await nats.start()
        try:
            async with receiver() as one:
                yield Surroundings(postgres, nats, one)
        finally:
            await nats.stop()
            await postgres.stop()
