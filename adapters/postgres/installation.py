"""What the database says to whoever wants to run on it, before he asks for the lease: what is set, what is owed."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import asyncpg
import msgspec

from adapters.postgres.connect import classify, close, connect
from adapters.postgres.statements import statement
from amends.domain.matrix import OpenRow
from amends.values.errors import Unavailable

T = TypeVar("T")
Session: TypeAlias = "asyncpg.Connection[Any]"
MOST_NAMED = 10  # runs of each row


async def installed(dsn: str, name: str) -> str:
    """The value that a runtime has set, "" if none has or there is no schema yet. Raises `Unavailable`."""

    async def read(session: Session) -> str:
        if not await session.fetchval(statement("has_installation")):
            return ""
        return await session.fetchval(statement("read_installation"), name) or ""

    return await _looked(dsn, read)


async def open_rows(dsn: str, matrix_sha256: str) -> list[OpenRow]:
    """The rows of other matrices under which recovery runs are open. Raises `Unavailable`."""

    async def read(session: Session) -> list[OpenRow]:
        if not await session.fetchval(statement("has_runs")):
            return []
        return [
            OpenRow(
                found["matrix_row"], found["matrix_version"], found["runs"], tuple(found["named"]),
                msgspec.json.decode(found["row"]) if found["row"] is not None else None,
            )
            for found in await session.fetch(statement("rows_of_open_runs"), matrix_sha256, MOST_NAMED)
        ]  # fmt: skip

    return await _looked(dsn, read)


async def _looked(dsn: str, read: Callable[[Session], Awaitable[T]]) -> T:
    session = await connect(dsn, name="amends-look", read_only=True)
    try:
        return await read(session)
    except Exception as error:
        blame = classify(error)
        raise blame if isinstance(blame, Unavailable) else Unavailable(f"Postgres: {blame}") from error
    finally:
        await close(session)
