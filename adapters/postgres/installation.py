"""What the database says to whoever wants to run on it, before he asks for the lease: what is set, what is owed."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import asyncpg
import msgspec
from msgspec import Struct

from adapters.postgres.connect import classify, close, connect
from adapters.postgres.schema import check, kind_of
from adapters.postgres.statements import migrations, statement
from amends.domain.matrix import OpenRow
from amends.values.errors import BadConfiguration, Unavailable

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


class Server(Struct, frozen=True):
    """What a server says of itself. `pending`: migrations that a start would run, (name, kind) each."""

    version: str
    number: int
    fsync: str
    full_page_writes: str
    synchronous_commit: str
    standbys: str
    standby: bool
    max_connections: int
    may_create: bool
    now_us: int
    pending: tuple[tuple[str, str], ...]
    empty: bool  # it has no schema yet


async def server(dsn: str) -> Server:
    """The server of a database, and what this release would change there; nothing is written.

    Raises `Unavailable`, and `BadConfiguration` for a database of a release that this one cannot live with.
    """

    async def read(session: Session) -> Server:
        found = await session.fetchrow(statement("server_settings"))
        assert found is not None
        await check(session)
        rows = await session.fetch(statement("done_migrations")) if await _has_schema(session) else []
        done = {row["number"] for row in rows}
        pending = tuple((name, kind_of(text)) for number, name, text in migrations() if number not in done)
        return Server(**dict(found), pending=pending, empty=not done)

    return await _looked(dsn, read)


async def _has_schema(session: Session) -> bool:
    return bool(await session.fetchval(statement("has_migrations")))


async def _looked(dsn: str, read: Callable[[Session], Awaitable[T]]) -> T:
    session = await connect(dsn, name="amends-look", read_only=True)
    try:
        return await read(session)
    except BadConfiguration:
        raise
    except Exception as error:
        blame = classify(error)
        raise blame if isinstance(blame, Unavailable) else Unavailable(f"Postgres: {blame}") from error
    finally:
        await close(session)
