"""After a take-over nobody asks the runtime that was replaced, whether it is paused or has lost only Postgres."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tests.acceptance.pair import Pair, line

REQUESTS, AT_ONCE = 1000, 50
SOCKET = ".s.PGSQL.5432"


class Way:
    """A way to Postgres that can be cut: what goes through it stands still, as behind a firewall that drops."""

    def __init__(self, dsn: str, directory: Path) -> None:
        self._target = Path(unquote(dsn.rpartition("?host=")[2])) / SOCKET
        self._tasks, self._open = set[asyncio.Task[None]](), asyncio.Event()
        self._open.set()
        self._here = directory / SOCKET
        self.dsn = dsn.rpartition("?host=")[0] + f"?host={quote(str(directory))}"

    async def start(self) -> None:
        self._here.parent.mkdir()
        self._server = await asyncio.start_unix_server(self._serve, self._here)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, thither = await asyncio.open_unix_connection(self._target)
        for source, sink in ((reader, thither), (there, writer)):
            task = asyncio.create_task(self._copy(source, sink))
            self._tasks.add(task)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._open.wait()
                sink.write(data)
        except OSError:
            return
        finally:
            sink.close()

    def cut(self) -> None:
        self._open.clear()

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def load(client: Client) -> AsyncIterator[list[Any]]:
    """Commands without a pause, beside what happens; what they came to is appended."""
    answers: list[Any] = []
    running = asyncio.create_task(_keep_asking(client, answers))
    yield answers
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def _keep_asking(client: Client, answers: list[Any]) -> None:
    number = 0
    while True:
        number += 1
        answers.append(await _ask(client, f"before-{number}", 0.5))


async def _ask(client: Client, name: str, timeout_s: float) -> str:
    body = json.dumps({"account_id": name, "currency": "usd"}).encode()
    headers = {"Idempotency-Key": name}
    try:
        reply = await client.request("amends.v1.cmd.account.create", body, timeout=timeout_s, headers=headers)
    except NatsError as error:
        return type(error).__name__
    answer = json.loads(reply.data)
    return "ok" if answer["ok"] else str(answer["error"]["code"])


async def all_answered(pair: Pair) -> dict[str, int]:
    """What a thousand commands, fifty at a time, come to."""
    places, found = asyncio.Semaphore(AT_ONCE), dict[str, int]()

    async def one(number: int) -> None:
        async with places:
            answer = await _ask(pair.nats, f"after-{number}", 10)
        found[answer] = found.get(answer, 0) + 1

    await asyncio.gather(*(one(number) for number in range(REQUESTS)))
    return found


async def test_from_the_standbys_ready_on_every_request_is_answered_though_the_first_is_only_paused(
    pair: Pair,
) -> None:
    first = await pair.run("first")
    assert await line(first) == "ready"
    second = await pair.run("second")
    assert (await line(second)).startswith("standby")
    async with load(pair.nats) as before:
        while before.count("ok") < 20:
            await asyncio.sleep(0.05)
        os.kill(first.pid, signal.SIGSTOP)
        assert await line(second) == "ready"
        assert await all_answered(pair) == {"ok": REQUESTS}
    # and when it wakes it answers none of what was put in its mouth meanwhile
    os.kill(first.pid, signal.SIGCONT)
    assert await all_answered(pair) == {"ok": REQUESTS}  # the same keys: kept replies
    assert await first.wait() == 1


async def test_a_runtime_that_has_lost_only_postgres_answers_nobody_after_the_take_over(pair: Pair) -> None:
    way = Way(pair.postgres.dsn, pair.base / "way")
    await way.start()
    first = await pair.run("first", dsn=way.dsn)
    assert await line(first) == "ready"
    second = await pair.run("second")
    assert (await line(second)).startswith("standby")
    way.cut()
    assert await line(second) == "ready"
    assert await all_answered(pair) == {"ok": REQUESTS}
    assert first.returncode is None
    first.kill()
    await first.wait()
    await way.stop()


async def test_the_same_directory_after_a_kill_waits_for_nobody(pair: Pair) -> None:
    first = await pair.run("first")
    assert await line(first) == "ready"
    first.kill()
    await first.wait()
    again = await pair.run("first")
    # the first line: what had the lease is known to be dead
    assert await line(again) == "ready"
