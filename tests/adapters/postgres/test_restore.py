"""The mark of a restored database: made when no runtime is at work, and in one transaction."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from adapters.postgres import lease as module
from adapters.postgres.lease import Lease
from adapters.postgres.restore import Held, mark_restored
from amends.values.errors import BadConfiguration, Fenced
from tests.adapters.postgres.database import Database
from tests.patience import PATIENCE_S

BY = 1 << 32


@pytest.fixture
async def empty(database: Database) -> AsyncIterator[str]:
    """The DSN of another database of the server, without a schema."""
    superuser = await asyncpg.connect(database.superuser_dsn)
    name = await superuser.fetchval("SELECT current_database()")
    await superuser.execute(f"CREATE DATABASE {name}restored OWNER amends")
    yield database.dsn.replace(name, f"{name}restored")
    await superuser.execute(f"DROP DATABASE {name}restored WITH (FORCE)")
    await superuser.close()


@pytest.fixture
async def holder(empty: str) -> AsyncIterator[Lease]:
    """A runtime that holds the lease of that database, with a schema in it."""
    held = Lease(empty, "somebody")
    await held.acquire_now()
    await held.prepare("somebody", "0", 1)
    yield held
    await held.aclose()


def body(number: int) -> bytes:
    return b'{"number": %d}' % number


async def marked(dsn: str) -> int:
    async with asyncio.timeout(PATIENCE_S):
        return await mark_restored(dsn, "restore", BY, body, 7, lambda holder: holder == "dead")


async def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def test_a_runtime_that_renews_its_lease_is_named_and_keeps_it(holder: Lease, empty: str) -> None:
    with pytest.raises(Held, match="somebody holds the lease at epoch 1"):
        await marked(empty)
    assert holder.may_act()
    assert await rows(empty, "SELECT epoch, holder FROM lease") == [(1, "somebody")]
    assert await rows(empty, "SELECT * FROM document WHERE kind = 'restore'") == []


async def test_with_a_lease_that_was_given_back_the_epoch_goes_up_and_the_mark_says_where(
    holder: Lease, empty: str
) -> None:
    await holder.aclose()
    number = await marked(empty)
    assert number == 2 + BY
    assert await rows(empty, "SELECT epoch, holder FROM lease") == [(number, "")]
    found = await rows(empty, "SELECT body ->> 'number', stored_us FROM document WHERE kind = 'restore'")
    assert found == [(str(number), 7)]
    # and the next runtime has the lease at once, above it
    after = Lease(empty, "next")
    assert await after.acquire_now() == number + 1
    await after.aclose()


async def test_a_lease_that_the_backup_holds_for_somebody_is_taken_once_it_was_seen_not_to_be_renewed(
    holder: Lease, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALE_S", 0.6)
    await holder.aclose()
    await rows(empty, "UPDATE lease SET holder = 'of the backup', renewed_at = now() - interval '1 day'")
    assert await marked(empty) == 2 + BY


async def test_a_second_restore_has_a_higher_number(holder: Lease, empty: str) -> None:
    await holder.aclose()
    first = await marked(empty)
    assert await marked(empty) == first + 1 + BY


async def test_a_database_without_a_journal_is_not_marked(empty: str) -> None:
    with pytest.raises(BadConfiguration, match="no journal"):
        await marked(empty)
    assert await rows(empty, "SELECT to_regclass('lease') IS NULL") == [(True,)]


async def test_a_holder_raises_its_own_lease_and_ends_with_the_reason(holder: Lease, empty: str) -> None:
    await holder.raise_to(9 + BY, "a node has seen 9", "epoch_raised", b'{"seen": 9}', 7)
    assert not holder.may_act()
    with pytest.raises(Fenced, match="a node has seen 9"):
        async with asyncio.timeout(PATIENCE_S):
            await holder.run()
    assert await rows(empty, "SELECT epoch, holder FROM lease") == [(9 + BY, "")]
    assert await rows(empty, "SELECT body ->> 'seen' FROM document WHERE kind = 'epoch_raised'") == [("9",)]


async def test_who_was_replaced_raises_nothing(holder: Lease, empty: str) -> None:
    await rows(empty, "UPDATE lease SET epoch = 5, holder = 'another'")
    await holder.raise_to(9 + BY, "a node has seen 9", "epoch_raised", b"{}", 7)
    assert await rows(empty, "SELECT epoch, holder FROM lease") == [(5, "another")]
    assert await rows(empty, "SELECT * FROM document WHERE kind = 'epoch_raised'") == []
