"""A commit whose reply is lost, through a proxy of our own: the journal says exactly whether the batch is in (R03)."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from actors.account.state import Account
from adapters.postgres.journal import PostgresJournal, journal_of
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

TYPES = rows_of((RENTAL,))
Cut = Literal["", "before", "after"]


class Proxy:
    """A socket between client and server that cuts the connection at the next commit, before or after it is done."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder, self._server = folder, server
        self.cut: Cut = ""
        self.cuts = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._listener = await asyncio.start_unix_server(self._serve, str(self.folder / ".s.PGSQL.5432"))

    async def stop(self) -> None:
        self._listener.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(self._server)
        replies = asyncio.create_task(self._pump(server, to_client))
        self._tasks.add(replies)
        try:
            while data := await client.read(65536):
                if b'"jseq":' in data and self.cut:  # rows of a batch: nothing else is asked with them
                    if self.cut == "after":
                        replies.cancel()  # what the server answers from here on reaches nobody
                        await asyncio.wait({replies})
                        to_server.write(data)
                        await to_server.drain()
                        await server.read(65536)
                    self.cut = ""
                    self.cuts += 1
                    return
                to_server.write(data)
                await to_server.drain()
        finally:
            replies.cancel()
            to_server.close()
            to_client.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[Proxy]:
    host = parse_qs(urlsplit(database.dsn).query)["host"][0]
    with tempfile.TemporaryDirectory(prefix="amends-proxy-", dir="/tmp") as folder:
        made = Proxy(Path(folder), f"{host}/.s.PGSQL.5432")
        await made.start()
        yield made
        await made.stop()


@pytest.fixture
async def journal(database: Database, proxy: Proxy) -> AsyncIterator[PostgresJournal]:
    name = urlsplit(database.dsn).path
    dsn = f"postgresql://amends@{name}?host={proxy.folder}"
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
    proxy.cut = "after"
    await journal.commit(commit)
    assert proxy.cuts == 1
    assert await journal.head() == commit.after
    assert await accounts(database) == ["a"]


async def test_a_commit_that_never_arrived_is_found_undone_and_can_be_made_again(
    database: Database, journal: PostgresJournal, proxy: Proxy
) -> None:
    commit = seal([new_account("a")], await journal.head(), TYPES)
    proxy.cut = "before"
    with pytest.raises(Unavailable):
        await journal.commit(commit)
    assert proxy.cuts == 1
    assert await accounts(database) == []
    await journal.commit(commit)
    assert await accounts(database) == ["a"]


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_through_the_writer_every_turn_is_in_exactly_once_whatever_is_cut(
    database: Database, journal: PostgresJournal, proxy: Proxy, cut: Cut
) -> None:
    writer = JournalWriter(journal, await journal.head(), TYPES, lambda requirement: True, lambda: 0)
    task = asyncio.create_task(writer.run())
    ended: list[TurnFailed | None] = []
    try:
        for number in range(10):
            proxy.cut = cut
            writer.submit(Pending(new_account(f"a{number}"), ended.append))
            async with asyncio.timeout(PATIENCE_S):
                while len(ended) <= number:
                    await asyncio.sleep(0.005)
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert proxy.cuts == 10
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
    proxy.cut = "before"
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


async def head_of(database: Database) -> Head:
    connection = await asyncpg.connect(database.dsn)
    try:
        row = await connection.fetchrow("SELECT epoch, seq, audit_seq, hash, digest FROM journal_head")
    finally:
        await connection.close()
    assert row is not None
    return Head(*row)
