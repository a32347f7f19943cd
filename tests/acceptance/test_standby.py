"""Two runtimes on one Postgres: the second waits, and takes over a dead or a paused first, which writes no more."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import nats
import pytest
from nats.aio.client import Client

from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.postgres import EmbeddedPostgres


class Pair:
    """An external Postgres and NATS, and runtimes on them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.postgres, self.broker = EmbeddedPostgres(base / "servers"), EmbeddedNats(base / "servers")
        self.runtimes: list[asyncio.subprocess.Process] = []
        self.nats: Client

    async def start(self) -> None:
        (self.base / "servers").mkdir(parents=True)
        await self.postgres.start()
        await self.broker.start()
        self.nats = await nats.connect(self.broker.url)

    async def run(self, name: str) -> asyncio.subprocess.Process:
        state = self.base / name
        state.mkdir()
        config = state / "amends.toml"
        config.write_text(
            f'profile = "acceptance"\nstate_dir = "{state}"\n[postgres]\ndsn = "{self.postgres.dsn}"\n'
            f'[nats]\nservers = ["{self.broker.url}"]\n[http]\nlisten = "127.0.0.1:0"\n'
        )
        with (state / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "supervisors.boot", "run", "--config", str(config),
                stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self.runtimes.append(process)
        return process

    async def create_account(self, name: str) -> dict[str, Any]:
        body = json.dumps({"account_id": name, "currency": "usd"}).encode()
        reply = await self.nats.request(
            "amends.v1.cmd.account.create", body, timeout=5, headers={"Idempotency-Key": name}
        )
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def fetch(self, query: str) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.postgres.superuser_dsn)
        try:
            return [dict(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    async def stop(self) -> None:
        for process in self.runtimes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await self.nats.close()
        await self.broker.stop()
        await self.postgres.stop()


@pytest.fixture
async def pair(state_dir: Path) -> AsyncIterator[Pair]:
    made = Pair(state_dir)
    await made.start()
    yield made
    await made.stop()


async def line(process: asyncio.subprocess.Process, within_s: float = 30) -> str:
    """The next line that the runtime prints."""
    assert process.stdout is not None
    async with asyncio.timeout(within_s):
        return (await process.stdout.readline()).decode().strip()


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
