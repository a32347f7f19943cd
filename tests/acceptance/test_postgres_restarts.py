"""Postgres restarts ten times under load while a standby waits: nobody takes over, and nothing acknowledged is lost."""

import asyncio
import itertools
import json

from nats.errors import Error as NatsError

from tests.acceptance.pair import Pair, line

RESTARTS = 10


async def test_ten_restarts_of_postgres_under_load_make_no_take_over_and_lose_nothing(pair: Pair) -> None:
    first = await pair.run("first")
    assert await line(first) == "ready"
    second = await pair.run("second")
    (before,) = await pair.fetch("SELECT epoch FROM journal_head")
    kept: set[str] = set()
    stop = asyncio.Event()

    async def load(caller: int) -> None:
        """One account after the other, each asked for until it is answered for good."""
        for number in itertools.count():
            if stop.is_set():
                return
            name = f"a-{caller}-{number}"
            while True:
                try:
                    answer = await pair.create_account(name)
                except (NatsError, TimeoutError):
                    continue
                if answer["ok"]:
                    kept.add(name)
                    break
                assert answer["error"]["retryable"], answer
                await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as tasks:
        for caller in range(4):
            tasks.create_task(load(caller))
        for _ in range(RESTARTS):
            await asyncio.sleep(1.0)
            await pair.postgres.stop()
            await asyncio.sleep(0.5)
            await pair.postgres.start()
        count = len(kept)
        async with asyncio.timeout(30):
            while len(kept) < count + 8:  # it goes on
                await asyncio.sleep(0.05)
        stop.set()
    assert second.returncode is None
    assert first.returncode is None
    assert second.stdout is not None
    (after,) = await pair.fetch("SELECT epoch FROM journal_head")
    assert after == before, "the standby has taken over"
    found = {row["account_id"] for row in await pair.fetch("SELECT account_id FROM public_v1.account")}
    assert kept <= found
    entries = await pair.fetch("SELECT target_ref, count(*) FROM audit_log WHERE action = 'account.open' GROUP BY 1")
    assert {row["count"] for row in entries} == {1}, json.dumps(entries[:5])
