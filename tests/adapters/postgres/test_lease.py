"""The lease: renewed from the moment it is held, whatever the start is doing, and lost to whoever has taken it."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from adapters.postgres import lease as module
from adapters.postgres import schema
from adapters.postgres.lease import Lease
from adapters.postgres.statements import migrations
from amends.values.errors import BadConfiguration, Fenced
from tests.adapters.postgres.database import Database
from tests.patience import PATIENCE_S


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
        async with asyncio.timeout(PATIENCE_S):
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
        async with asyncio.timeout(PATIENCE_S):
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


async def test_a_lost_session_hands_nothing_over_while_its_holder_lives(elsewhere: Lease) -> None:
    # given a holder whose session is ended from outside
    assert await elsewhere.acquire_now() == 1
    wanting = Lease(elsewhere._dsn, "second")
    superuser = await asyncpg.connect(elsewhere._dsn)
    await superuser.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'amends-lease' "
        "AND datname = current_database() AND pid <> pg_backend_pid()"
    )
    # then nobody gets the lease, and the holder renews it again
    assert await wanting.acquire_now() is None
    await renewed(elsewhere, 2)
    assert await wanting.acquire_now() is None
    assert elsewhere.may_act()
    await superuser.close()
    await wanting.aclose()


async def test_a_lease_is_taken_once_it_was_seen_unrenewed_and_only_time_of_looking_counts(elsewhere: Lease) -> None:
    # given a holder that no longer renews, and one that wants the lease
    assert await elsewhere.acquire_now() == 1
    assert elsewhere._renewing is not None
    elsewhere._renewing.cancel()
    wanting = Lease(elsewhere._dsn, "second")
    assert await wanting.acquire_now() is None
    # then a pause of the one that wants it, however long, is no time in which it has seen anything
    wanting._looked -= 3600
    assert await wanting.acquire_now() is None
    # and after five seconds of looking it has the lease
    found = None
    for _ in range(int(module.STALE_S / (2 * module.POLL_S)) - 1):
        wanting._looked -= 3600
        found = await wanting.acquire_now()
    assert found == 2
    await wanting.aclose()


async def test_a_lease_that_was_given_back_or_whose_holder_is_dead_is_free(elsewhere: Lease) -> None:
    assert await elsewhere.acquire_now() == 1
    await elsewhere.aclose()
    second = Lease(elsewhere._dsn, "second")
    assert await second.acquire_now() == 2
    third = Lease(elsewhere._dsn, "third", is_dead=lambda holder: holder == "second")
    assert await third.acquire_now() == 3
    # and who has lost it does not give back what is another's
    await second.aclose()
    fourth = Lease(elsewhere._dsn, "fourth")
    assert await fourth.acquire_now() is None
    await fourth.aclose()
    await third.aclose()


async def test_where_postgres_takes_no_writes_the_holder_still_answers_and_begins_nothing(
    elsewhere: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await elsewhere.acquire_now() == 1
    monkeypatch.setattr(module, "ACT_S", 0.2)
    superuser = await asyncpg.connect(elsewhere._dsn)
    await superuser.execute("REVOKE UPDATE ON lease FROM amends")
    async with asyncio.timeout(PATIENCE_S):
        while elsewhere.may_act():
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    assert elsewhere.may_answer()
    await superuser.execute("GRANT UPDATE ON lease TO amends")
    await superuser.close()


async def test_a_fenced_holder_begins_and_answers_nothing_from_that_moment(elsewhere: Lease) -> None:
    assert await elsewhere.acquire_now() == 1
    elsewhere.fence()
    assert not elsewhere.may_act()
    assert not elsewhere.may_answer()


async def test_the_journal_is_ours_before_the_schema_moves(elsewhere: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a database made by an earlier runtime, and a release whose migration rewrites states and takes its time
    assert await elsewhere.acquire_now() == 1
    await elsewhere.prepare("first", "0", 1)
    superuser = await asyncpg.connect(elsewhere._dsn)
    await superuser.execute("SELECT set_config('amends.epoch', '1', false)")
    await superuser.execute(
        "INSERT INTO actors (kind, id, state, version, due_us, body) VALUES ('x','1','a',1,NULL,'{}')"
    )
    await elsewhere.aclose()
    rewriting = """
        DO $$ BEGIN
            IF (SELECT epoch FROM journal_head) <> 2 THEN RAISE 'an older runtime may still write'; END IF;
        END $$;
        UPDATE actors SET state = 'b';
    """
    monkeypatch.setattr(schema, "migrations", lambda: [*migrations(), (9999, "9999_rewrite.sql", rewriting)])
    second = Lease(elsewhere._dsn, "second")
    assert await second.acquire_now() == 2
    # when it prepares: the guards let it through, and nobody of an older epoch writes meanwhile
    await second.prepare("second", "0", 1)
    assert await superuser.fetchval("SELECT state FROM actors") == "b"
    await superuser.close()
    await second.aclose()


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("wrong_s", [-3, 3])
async def test_who_has_another_clock_than_postgres_is_refused_at_once_also_while_another_holds_the_lease(
    elsewhere: Lease, wrong_s: int, held: bool
) -> None:
    if held:
        assert await elsewhere.acquire_now() == 1
    wanting = Lease(elsewhere._dsn, "second", wall_us=lambda: time.time_ns() // 1000 + wrong_s * 1_000_000)
    where = "ahead of" if wrong_s > 0 else "behind"
    with pytest.raises(BadConfiguration, match=rf"clock is [23]\.\d s {where} Postgres'"):
        async with asyncio.timeout(PATIENCE_S):
            await wanting.acquire()
    await wanting.aclose()
    # then it has taken nothing; a holder's own connection is busy renewing, so another one asks
    third = Lease(elsewhere._dsn, "third")
    assert await third.acquire_now() == (None if held else 1)
    await third.aclose()
