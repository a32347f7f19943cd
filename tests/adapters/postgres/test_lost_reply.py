"""A commit whose reply is lost, through a proxy of our own: the journal says exactly whether the batch is in (R03)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal, get_args
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from actors.account.state import Account
from adapters.postgres import connect as connecting
from adapters.postgres import silence
from adapters.postgres.journal import PostgresJournal, journal_of
from adapters.postgres.reading import ReadSide
from amends.domain.domain import rows_of
from amends.ports.journal import Head, Turn
from amends.runtime.writer import JournalWriter, Pending
from amends.turn.decision import text
from amends.turn.seal import seal
from amends.values.errors import TurnFailed, Unavailable
from amends.values.records import AuditDraft
from supervisors.rental import RENTAL
from tests.adapters.postgres.database import Database
from tests.patience import PATIENCE_S
from tests.proxy import Fault, Proxy

TYPES = rows_of((RENTAL,))
Cut = Literal["cut before", "cut after"]


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[Proxy]:
    host = parse_qs(urlsplit(database.dsn).query)["host"][0]
    made = Proxy(f"{host}/.s.PGSQL.5432")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def dsn(database: Database, proxy: Proxy) -> str:
    """The database, through the proxy."""
    return f"postgresql://amends@127.0.0.1:{proxy.port}{urlsplit(database.dsn).path}"


@pytest.fixture
async def journal(dsn: str) -> AsyncIterator[PostgresJournal]:
    made = journal_of(dsn, 1, (RENTAL,))
    yield made
    await made.aclose()


def new_account(name: str) -> Turn:
    turn = Turn()
    turn.kind, turn.id, turn.state, turn.version = "account", name, "open", 1
    turn.body = text(Account(state="open", version=1, currency="usd", created_us=1))
    draft = AuditDraft(f"aud_{name}", 1, "test", "account.open", f"account:{name}", None, "open", "", "", "", "", 1, {})
    turn.audits = [draft]
    return turn


async def accounts(database: Database) -> list[str]:
    return [row["account_id"] for row in await database.all("SELECT account_id FROM accounts ORDER BY 1")]


async def test_a_commit_that_is_done_but_not_answered_is_found_done(
    database: Database, journal: PostgresJournal, proxy: Proxy
) -> None:
    commit = seal([new_account("a")], await journal.head(), TYPES)
    proxy.strike("cut after", 1)
    await journal.commit(commit)
    assert proxy.did["cut after"] == 1
    assert await journal.head() == commit.after
    assert await accounts(database) == ["a"]


async def test_a_commit_that_never_arrived_is_found_undone_and_can_be_made_again(
    database: Database, journal: PostgresJournal, proxy: Proxy
) -> None:
    commit = seal([new_account("a")], await journal.head(), TYPES)
    proxy.strike("cut before", 1)
    with pytest.raises(Unavailable):
        await journal.commit(commit)
    assert proxy.did["cut before"] == 1
    assert await accounts(database) == []
    await journal.commit(commit)
    assert await accounts(database) == ["a"]


@pytest.mark.parametrize("cut", get_args(Cut))
async def test_through_the_writer_every_turn_is_in_exactly_once_whatever_is_cut(
    database: Database, journal: PostgresJournal, proxy: Proxy, cut: Cut
) -> None:
    writer = JournalWriter(journal, await journal.head(), TYPES, lambda requirement: True, lambda: 0)
    task = asyncio.create_task(writer.run())
    ended: list[TurnFailed | None] = []
    try:
        for number in range(10):
            proxy.strike(cut, 1)
            writer.submit(Pending(new_account(f"a{number}"), ended.append))
            async with asyncio.timeout(PATIENCE_S):
                while len(ended) <= number:
                    await asyncio.sleep(0.005)
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert proxy.did[cut] == 10
    assert ended == [None] * 10
    assert await accounts(database) == [f"a{number}" for number in range(10)]
    (chain,) = await database.all("SELECT count(*) AS entries, max(seq) AS last FROM audit_log")
    assert chain == {"entries": 10, "last": 10}
    assert await head_of(database) == writer.head


async def test_while_the_session_that_sent_the_commit_is_still_at_it_the_doubt_stays(
    database: Database, journal: PostgresJournal, proxy: Proxy
) -> None:
    # given a COMMIT in doubt, and a session that still holds the head, as the old one does until it has ended
    commit = seal([new_account("a")], await journal.head(), TYPES)
    other = await asyncpg.connect(database.dsn)
    proxy.strike("cut before", 1)
    holding = other.transaction()
    with pytest.raises(Unavailable):
        await journal.commit(commit)
    await holding.start()
    await other.execute("SELECT 1 FROM journal_head FOR UPDATE")
    for _ in range(3):
        with pytest.raises(Unavailable, match="head"):
            await journal.commit(commit)
    # when that session has ended, the batch is made, once
    await holding.rollback()
    await other.close()
    await journal.commit(commit)
    assert await accounts(database) == ["a"]


@pytest.mark.parametrize("way", ["blackhole out", "blackhole back"])
async def test_a_connection_that_was_forgotten_on_the_way_does_not_hold_up_what_can_reach_postgres(
    database: Database, dsn: str, proxy: Proxy, way: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given calls that would wait for hours, and connections that stand
    monkeypatch.setattr(connecting, "COMMAND_TIMEOUT_S", 3600.0)
    monkeypatch.setattr(silence, "SILENT_S", 0.1)
    journal, read = journal_of(dsn, 1, (RENTAL,)), ReadSide(dsn)
    commit = seal([new_account("a")], await journal.head(), TYPES)
    await journal.newest_us()
    assert await read.rows("violations") == []
    # when the way forgets all of them
    proxy.strike(way)
    calls = [
        asyncio.create_task(call) for call in (journal.commit(commit), journal.newest_us(), read.rows("violations"))
    ]
    await said(proxy, way, 3)
    proxy.lift()
    # then each is made again on a new one: a read by its caller, a batch by itself
    async with asyncio.timeout(PATIENCE_S):
        done = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in done[1:]] == [Unavailable, list]
    if isinstance(done[0], Unavailable):
        await journal.commit(commit)
    assert isinstance(done[0], Unavailable | None)
    assert await accounts(database) == ["a"]
    await journal.aclose()
    await read.aclose()


async def test_a_server_that_is_at_work_is_waited_for(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "SILENT_S", 0.05)
    connection = await connecting.connect(dsn)
    async with silence.watched(connection, dsn):
        await connection.execute("SELECT pg_sleep(0.5)")
    await connection.close()


async def test_a_foreign_lock_on_the_head_is_no_turns_fault(database: Database, journal: PostgresJournal) -> None:
    commit = seal([new_account("a"), new_account("b")], await journal.head(), TYPES)
    other = await asyncpg.connect(database.dsn)
    async with other.transaction():
        await other.execute("SELECT 1 FROM journal_head FOR UPDATE")
        with pytest.raises(Unavailable, match="head"):
            await journal.commit(commit)
    await other.close()
    await journal.commit(commit)
    assert await accounts(database) == ["a", "b"]


async def said(proxy: Proxy, fault: Fault, connections: int) -> None:
    """Wait until so many connections have met the fault."""
    async with asyncio.timeout(PATIENCE_S):
        while proxy.hit[fault] < connections:
            await asyncio.sleep(0.005)


async def head_of(database: Database) -> Head:
    connection = await asyncpg.connect(database.dsn)
    try:
        row = await connection.fetchrow("SELECT epoch, seq, audit_seq, hash, digest FROM journal_head")
    finally:
        await connection.close()
    assert row is not None
    return Head(*row)
