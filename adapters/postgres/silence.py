"""A call that gets no answer: whether the server is still at it is asked in another session.

What forgets a connection without a word (a firewall, a balancer) leaves both ends waiting; what is under way would
wait for the whole `command_timeout`, and with the writer's commit everything else, though Postgres can be reached.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from adapters.postgres.connect import DRIVER_ERRORS, connect
from adapters.postgres.statements import statement
from amends.values.errors import Unavailable

SILENT_S = 5.0


@asynccontextmanager
async def watched(connection: "asyncpg.Connection[Any]", dsn: str) -> AsyncIterator[None]:
    """Around one call: the connection is cut when nothing was heard for so long and the server waits for us as well.

    A server that is at work is left alone, however long it takes; so is one that does not say, or cannot be asked.
    """
    looking: list[asyncio.Task[None]] = []

    def look() -> None:
        looking.append(asyncio.create_task(_look(connection, dsn), name="silent-call"))

    timer = asyncio.get_running_loop().call_later(SILENT_S, look)
    try:
        yield
    finally:
        timer.cancel()
        if looking:
            looking[0].cancel()
            await asyncio.wait(looking)


async def _look(connection: "asyncpg.Connection[Any]", dsn: str) -> None:
    while True:
        if await _waits_for_us(connection.get_server_pid(), dsn):
            connection.terminate()
            return
        await asyncio.sleep(SILENT_S)


async def _waits_for_us(pid: int, dsn: str) -> bool:
    """Whether the server waits for what we wait for; not where it cannot be asked."""
    try:
        other = await connect(dsn, name="amends-look", read_only=True)
    except Unavailable:
        return False
    try:
        return bool(await other.fetchval(statement("waits_for_us"), pid, timeout=SILENT_S))
    except DRIVER_ERRORS:
        return False
    finally:
        other.terminate()
