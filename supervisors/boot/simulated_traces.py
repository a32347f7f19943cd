"""The traces of a simulated run, for Jaeger: its commits are written into a Postgres that is there for so long.

Spans are derived in one place, the view `public_v1.span`, and not a second time for simulated worlds.
"""

import asyncio
import json
import logging
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Final

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.otel.jaeger import jaeger_json
from adapters.postgres.journal import journal_of
from adapters.postgres.lease import Lease
from adapters.postgres.reading import ReadSide
from adapters.postgres.spans import SpanReader
from amends.ports.journal import Commit
from supervisors.rental import RENTAL
from supervisors.simulation.world import START_US

SPANS: Final = 5000  # that are read at once


def write(commits: Sequence[Commit], file: Path) -> int:
    """Write Jaeger's JSON of all traces; how many there are."""
    logging.disable(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory(prefix="amends-simulated-") as base:
            Path(base).chmod(0o755)  # Postgres is perhaps another account's
            traces = jaeger_json(asyncio.run(_derived(commits, Path(base))))
    finally:
        logging.disable(logging.NOTSET)
    file.write_text(json.dumps(traces), encoding="utf-8")
    return len(traces["data"])


async def _derived(commits: Sequence[Commit], base: Path) -> list[dict[str, object]]:
    server = EmbeddedPostgres(base / "state")
    await server.start()
    try:
        await _filled(server, commits)
        return await _spans(server)
    finally:
        await server.stop()


async def _filled(server: EmbeddedPostgres, commits: Sequence[Commit]) -> None:
    """Each runtime of the world has its lease and writes what it wrote there."""
    for epoch, own in groupby(commits, key=lambda commit: commit.before.epoch):
        lease = await _held(server.dsn, epoch)
        journal = journal_of(server.dsn, epoch, (RENTAL,), role=lease.role)
        for commit in own:
            await journal.commit(commit)
        await journal.aclose()
        await lease.aclose()


async def _held(dsn: str, epoch: int) -> Lease:
    """The lease of that epoch; one before it has perhaps committed nothing."""
    while True:
        lease = Lease(dsn, "simulated")
        await lease.acquire_now()
        await lease.prepare("simulated", version("amends"), START_US)
        if lease.epoch >= epoch:
            return lease
        await lease.aclose()


async def _spans(server: EmbeddedPostgres) -> list[dict[str, object]]:
    read = ReadSide(server.dsn)
    reader, found, cursor = SpanReader(read), list[dict[str, object]](), 0
    try:
        head = await reader.head()
        while cursor < head:
            rows, cursor = await reader.after(cursor, SPANS)
            found += rows
    finally:
        await read.aclose()
    return found
