"""What a life costs, counted and not timed: the same on a busy machine.

`python -m benchmarks.cost` prints it; `tests/benchmarks/test_cost.py` holds it to what is stored here. Sixteen lives at
a time: with more of them a commit carries more turns, and each costs less.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import asyncpg

from adapters.embedded.postgres import EmbeddedPostgres
from benchmarks.running import kernel, lives

IN_FLIGHT, LIVES = 16, 320
Cost = dict[str, float]
# Of a life, by its end: rows that stay, bytes of log, calls of functions. How many share a commit is a matter of time,
# and not held. A change that saves something lowers its figure here; one that costs more says why it may.
STORED: dict[str, Cost] = {
    "done": {"rows": 8.38, "wal_bytes": 15_200, "calls": 1_540},
    "compensated": {"rows": 20.56, "wal_bytes": 34_000, "calls": 2_640},
}  # fmt: skip
TABLES = "SELECT format('%I.%I', schemaname, relname) AS name FROM pg_stat_user_tables"
LOG = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"


class Calls:
    """How many functions are called while it is entered, ours and built-in ones."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    def _seen(self, frame: FrameType, event: str, arg: Any) -> None:
        if event in ("call", "c_call"):
            self.count += 1


async def measured(dsn: str) -> dict[str, Cost]:
    """Of a life that is done, and of one that is compensated."""
    found = {}
    async with kernel(dsn) as it:
        looking = await asyncpg.connect(dsn)
        try:
            for name, doomed in (("done", False), ("compensated", True)):
                await lives(it, LIVES, IN_FLIGHT, doomed=doomed)  # plans are made, statements prepared
                before, commits = await _counted(looking), it.writer.commits
                with Calls() as calls:
                    await lives(it, LIVES, IN_FLIGHT, doomed=doomed)
                after = await _counted(looking)
                found[name] = {key: round((after[key] - before[key]) / LIVES, 2) for key in after} | {
                    "commits": round((it.writer.commits - commits) / LIVES, 3),
                    "calls": round(calls.count / LIVES),
                }
        finally:
            await looking.close()
    return found


async def _counted(looking: "asyncpg.Connection[Any]") -> Cost:
    """Rows that are there, and bytes of log that were ever written."""
    names = [row["name"] for row in await looking.fetch(TABLES)]
    rows = [await looking.fetchval(f"SELECT count(*) FROM ONLY {name}") for name in names]  # noqa: S608 - names of ours
    return {"rows": float(sum(rows)), "wal_bytes": float(await looking.fetchval(LOG))}


async def run(say: Callable[[str], None] = print) -> dict[str, Cost]:
    """Measure on servers of its own."""
    with tempfile.TemporaryDirectory(prefix="amends-cost-") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - the server of a root user runs under another account
        postgres = EmbeddedPostgres(Path(folder))
        await postgres.start()
        try:
            found = await measured(postgres.dsn)
        finally:
            await postgres.stop()
    say(json.dumps(found, indent=2))
    return found


if __name__ == "__main__":
    asyncio.run(run())
