"""The lease: renewed from the moment it is held, whatever the start is doing, and lost to whoever has taken it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from adapters.postgres import lease as module
from adapters.postgres.lease import Lease
from amends.values.errors import BadConfiguration, Fenced
from tests.adapters.postgres.database import Database


@pytest.fixture
async def elsewhere(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lease]:
    """A lease of another database of the server, not yet asked for, renewed quickly."""
    monkeypatch.setattr(module, "RENEW_S", 0.02)
    superuser = await asyncpg.connect(database.superuser_dsn)
    name = (await superuser.fetchval("SELECT current_database()")) + "lease"
    await superuser.execute(f"CREATE DATABASE {name} OWNER amends")
    made = Lease(database.dsn.replace(name.removesuffix("lease"), name), "first")
    yield made
    await made.aclose()
    await superuser.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await superuser.close()


async def renewed(lease: Lease, times: int) -> None:
    """Wait until the database has seen so many renewals."""
    connection = await asyncpg.connect(lease._dsn)
    seen: set[Any] = set()
    try:
        async with asyncio.timeout(10):
            while len(seen) <= times:
                seen.add(await connection.fetchval("SELECT renewed_at FROM lease"))
                await asyncio.sleep(0.005)
    finally:
        await connection.close()


async def test_a_lease_is_renewed_while_the_schema_is_still_being_made(elsewhere: Lease) -> None:
    # given a migration that somebody's lock holds up
    assert await elsewhere.acquire_now() == 1
    await renewed(elsewhere, 2)
    blocker = await asyncpg.connect(elsewhere._dsn)
    await blocker.execute("CREATE TABLE schema_migration (number integer PRIMARY KEY, name text, sha256 text)")
    holding = blocker.transaction()
    await holding.start()
    await blocker.execute("LOCK TABLE schema_migration")
    preparing = asyncio.create_task(elsewhere.prepare("first", "0", 1))
    # then the lease is renewed all the same, and the start goes on when it can
    await renewed(elsewhere, 3)
    assert not preparing.done()
    await holding.rollback()
    await preparing
    await blocker.close()
    assert elsewhere.may_act()


async def test_a_holder_whose_lease_was_taken_is_fenced(elsewhere: Lease) -> None:
    assert await elsewhere.acquire_now() == 1
    thief = await asyncpg.connect(elsewhere._dsn)
    await thief.execute("UPDATE lease SET epoch = 2")
    await thief.close()
    with pytest.raises(Fenced):
        async with asyncio.timeout(10):
            await elsewhere.run()


async def test_a_database_that_lets_nothing_be_made_is_a_configuration_error(database: Database) -> None:
    superuser = await asyncpg.connect(database.superuser_dsn)
    await superuser.execute("CREATE ROLE nobody_here LOGIN")
    stranger = Lease(database.dsn.replace("amends@", "nobody_here@"), "stranger")
    try:
        with pytest.raises(BadConfiguration, match="permission denied"):
            await stranger.acquire_now()
    finally:
        await stranger.aclose()
        await superuser.execute("DROP ROLE nobody_here")
        await superuser.close()
