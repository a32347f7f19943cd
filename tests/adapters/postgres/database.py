"""One embedded Postgres for a test session, and a fresh migrated database for each test, copied from a template."""

import itertools
import shutil
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest_asyncio

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.postgres.journal import PostgresJournal, journal_of
from adapters.postgres.lease import Lease
from adapters.postgres.reading import ReadSide
from amends.domain.domain import ends_of
from supervisors.rental import RENTAL
from tests.adapters.postgres.story import Book, context
from tests.directories import migrate, scratch

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[EmbeddedPostgres]:
    base = scratch("amends-test-")
    # Its log lies in memory, where compressing saves nothing.
    server = EmbeddedPostgres(base / "state", settings={"max_connections": "60", "wal_compression": "off"})
    await server.start()
    yield server
    await server.stop()
    shutil.rmtree(base)


class Database(SimpleNamespace):
    """`dsn`, `superuser_dsn`, `role`, `journal`, `book` (tells actors things and commits) and `read`."""

    dsn: str
    superuser_dsn: str
    role: str
    journal: PostgresJournal
    book: Book
    read: ReadSide

    async def all(self, query: str, *args: Any) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return [dict(row) for row in await connection.fetch(query, *args)]
        finally:
            await connection.close()

    async def force(self, statement: str) -> None:
        """What a superuser can do past every trigger."""
        connection = await asyncpg.connect(self.superuser_dsn)
        try:
            await connection.execute(f"SET session_replication_role = replica; {statement}")
        finally:
            await connection.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template(server: EmbeddedPostgres) -> str:
    """A database that the product has migrated and nobody has led yet, to be copied."""
    await _superuser(server, "CREATE DATABASE migrated OWNER amends")
    await migrate(named(server.dsn, "migrated"), named(server.superuser_dsn, "migrated"))
    return "migrated"


@pytest_asyncio.fixture
async def empty(server: EmbeddedPostgres, template: str) -> AsyncIterator[str]:
    """The name of a migrated database in which nothing has happened."""
    name = f"test{next(_numbers)}"
    await _superuser(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY OWNER amends")
    yield name
    await _superuser(server, f"DROP DATABASE {name} WITH (FORCE)")


def named(dsn: str, name: str) -> str:
    """The DSN of another database of the server."""
    return dsn.replace("/amends?", f"/{name}?")


async def _superuser(server: EmbeddedPostgres, statement: str) -> None:
    connection = await asyncpg.connect(server.superuser_dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest_asyncio.fixture
async def database(server: EmbeddedPostgres, empty: str) -> AsyncIterator[Database]:
    dsn, admin = named(server.dsn, empty), named(server.superuser_dsn, empty)
    lease = Lease(dsn, "test")
    assert await lease.acquire_now() == 1
    await lease.prepare("instance-1", "0.1.0", time.time_ns() // 1000)
    journal = journal_of(dsn, 1, (RENTAL,), role=lease.role)
    read = ReadSide(dsn, role=lease.role, ends=ends_of((RENTAL,)))
    book = Book(journal, await journal.head(), context(1))
    yield Database(dsn=dsn, superuser_dsn=admin, role=lease.role, journal=journal, book=book, read=read)
    await read.aclose()
    await journal.aclose()
    await lease.aclose()
