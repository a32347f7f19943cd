"""Two runtimes on one Postgres: the second waits, and takes over a dead or a paused first, which writes no more."""

import asyncio
import json
import os
import signal
import time

import aiohttp
import asyncpg
import pytest

from adapters.embedded.ports import free_port
from tests.acceptance.pair import Pair, line
from tests.patience import PATIENCE_S


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
    assert await line(second) == "ready"
    (before,) = await pair.fetch("SELECT seq FROM journal_head")
    os.kill(first.pid, signal.SIGCONT)
    # then the first finds itself fenced and ends
    async with asyncio.timeout(PATIENCE_S):
        assert await first.wait() == 1
    last = (pair.base / "first" / "log").read_text().splitlines()[-1]
    said = "another runtime has taken the lease from epoch 1; this runtime has stopped"
    assert (json.loads(last)["level"], json.loads(last)["message"]) == ("error", said)
    rows = await pair.fetch(f"SELECT DISTINCT epoch FROM audit_log WHERE jseq > {before['seq']}")
    assert [row["epoch"] for row in rows] in ([], [2])
    assert (await pair.create_account("after"))["ok"]
    assert await pair.fetch("SELECT * FROM public_v1.invariant_violation") == []


async def answered(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def test_a_standby_says_how_it_is_also_where_the_first_has_its_address(pair: Pair) -> None:
    # given a first, and standbys: one with an address of its own, one with the first's
    shared, own = free_port(), free_port()
    first = await pair.run("first", http_port=shared)
    assert await line(first) == "ready"
    second = await pair.run("second", http_port=own)
    assert (await line(second)).startswith("standby")
    third = await pair.run("third", http_port=shared)
    assert (await line(third)).startswith("standby")
    # then it is alive and not ready, and says why; the other one says that it cannot listen, and waits all the same
    assert (await answered(own, "/healthz"))[0] == 200
    status, text = await answered(own, "/readyz")
    assert (status, "standby" in text) == (503, True)
    assert "until it is free this standby has no health of its own" in (pair.base / "third" / "log").read_text()
    assert third.returncode is None
    # when the one beside the first takes over from it while it is paused and keeps the address
    second.kill()
    await second.wait()
    os.kill(first.pid, signal.SIGSTOP)
    assert await line(third) == "ready"
    assert (await pair.create_account("after"))["ok"]
    # then it listens there as soon as the first has gone
    first.kill()
    endpoints = pair.base / "third" / "endpoints.json"
    async with asyncio.timeout(PATIENCE_S):
        while not json.loads(endpoints.read_text())["http_url"]:
            await asyncio.sleep(0.05)
    assert (await answered(shared, "/readyz"))[0] == 200


async def test_a_runtime_with_another_key_to_the_nodes_does_not_start(pair: Pair) -> None:
    first = await pair.run("first")
    assert await line(first) == "ready"
    (known,) = await pair.fetch("SELECT value FROM installation WHERE name = 'ssh_client_key'")
    # a standby with a key of its own ends before it waits, and says how to share the key
    second = await pair.run("second", own_key=True)
    assert await second.wait() == 2
    said = (pair.base / "second" / "log").read_text()
    for word in (known["value"], "[ssh].client_key", str(pair.base / "second" / "ssh_client_key"), "copy"):
        assert word in said
    # so does one that finds the lease free
    first.kill()
    await first.wait()
    assert await (await pair.run("second", own_key=True)).wait() == 2
    # when the key is changed on purpose, then the new one holds and the change is audited
    changed = await pair.run("second", "--accept-new-ssh-key", own_key=True)
    while (said := await line(changed)) != "ready":
        assert said.startswith("standby"), said  # until it has seen for itself that the lease is not renewed
    (now,) = await pair.fetch("SELECT value FROM installation WHERE name = 'ssh_client_key'")
    assert now["value"] != known["value"]
    (entry,) = await pair.fetch("SELECT details::text FROM audit_log WHERE action = 'ssh.client_key_changed'")
    assert json.loads(entry["details"]) == {"was": known["value"], "is": now["value"]}
    assert await (await pair.run("first", own_key=True)).wait() == 2


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
