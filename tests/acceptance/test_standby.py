"""Two runtimes on one Postgres: the second waits, and takes over a dead or a paused first, which writes no more."""

import asyncio
import json
import os
import signal
import time

import asyncpg
import pytest

from tests.acceptance.pair import Pair, line


async def test_a_standby_serves_nothing_and_takes_over_within_ten_seconds_of_a_kill(pair: Pair) -> None:
    first = await pair.run("first")
    assert await line(first) == "ready"
    second = await pair.run("second")
    assert (await line(second)).startswith("standby")
    assert (await pair.create_account("before"))["ok"]
    assert not (pair.base / "second" / "endpoints.json").exists()
    killed = time.monotonic()
    first.kill()
    assert await line(second, 10) == "ready"
    assert time.monotonic() - killed < 10
    assert (await pair.create_account("after"))["ok"]
    assert [row["epoch"] for row in await pair.fetch("SELECT epoch FROM runtime_epoch ORDER BY epoch")] == [1, 2]
    assert await pair.fetch("SELECT * FROM public_v1.invariant_violation") == []


async def test_a_paused_runtime_is_replaced_and_writes_nothing_when_it_wakes(pair: Pair) -> None:
    first = await pair.run("first")
    assert await line(first) == "ready"
    second = await pair.run("second")
    assert (await line(second)).startswith("standby")
    os.kill(first.pid, signal.SIGSTOP)
    assert await line(second, 15) == "ready"
    (before,) = await pair.fetch("SELECT seq FROM journal_head")
    os.kill(first.pid, signal.SIGCONT)
    # then the first finds itself fenced and ends
    async with asyncio.timeout(15):
        assert await first.wait() == 1
    last = (pair.base / "first" / "log").read_text().splitlines()[-1]
    assert last == "amends: another runtime has taken the lease from epoch 1; this runtime has stopped"
    rows = await pair.fetch(f"SELECT DISTINCT epoch FROM audit_log WHERE jseq > {before['seq']}")
    assert [row["epoch"] for row in rows] in ([], [2])
    assert (await pair.create_account("after"))["ok"]
    assert await pair.fetch("SELECT * FROM public_v1.invariant_violation") == []


async def test_on_an_external_server_the_written_dsn_reads_the_views_and_nothing_else(pair: Pair) -> None:
    assert await line(await pair.run("first")) == "ready"
    dsn = json.loads((pair.base / "first" / "endpoints.json").read_text())["postgres_dsn"]
    assert "amends_reader:" in dsn
    reader = await asyncpg.connect(dsn)
    try:
        assert await reader.fetchval("SELECT count(*) FROM public_v1.node") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.fetch("SELECT * FROM allocations")
    finally:
        await reader.close()
