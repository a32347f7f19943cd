"""The journal: one transaction per batch, beginning with the compare-and-set of the one head.

A lost reply to COMMIT is settled by reading the head back: it tells exactly whether the batch is in. No database
call is ever cancelled; after an exception that leaves doubt the connection is cut and made anew. Reading is `Stored`'s.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
from msgspec import Struct

from adapters.postgres.committing import CALL, HEAD, Batches, blame_of
from adapters.postgres.connect import classify, close, connect
from adapters.postgres.silence import watched
from adapters.postgres.statements import statement
from adapters.postgres.stored import Stored
from amends.domain.domain import Domain, rows_of
from amends.ports.journal import Commit, Head
from amends.values.errors import Fenced, TurnFailed, Unavailable
from amends.values.records import MessageRow
from amends.values.tables import table_of


class PostgresJournal(Stored):
    """Implements `amends.ports.journal.Journal`.

    `tables`: the state table of each actor kind; `rows`: the row types in the order of their writing; `role`: what its
    sessions work as.
    """

    def __init__(
        self, dsn: str, epoch: int, tables: Mapping[str, str], rows: Sequence[type[Struct]], *, role: str = ""
    ) -> None:
        super().__init__(dsn, epoch, tables, role)
        self._rows, self._batches = rows, Batches(tables, rows)
        self._writer: asyncpg.Connection[Any] | None = None
        self._doubt: Commit | None = None

    async def head(self) -> Head:
        """See `Journal.head`."""
        return await self._head("read_head")

    async def _head(self, name: str) -> Head:
        connection = await self._writing()
        try:
            async with watched(connection, self._dsn):
                row = await connection.fetchrow(statement(name))
        except Exception as error:
            connection.terminate()
            raise Unavailable(f"the journal's head cannot be read: {classify(error)}") from error
        if row is None or row["epoch"] != self._epoch:
            raise Fenced(f"the journal belongs to epoch {row and row['epoch']}, not to {self._epoch}")
        return Head(row["epoch"], row["seq"], row["audit_seq"], row["hash"], row["digest"])

    async def commit(self, commit: Commit) -> None:
        """See `Journal.commit`."""
        if self._doubt is not None and await self._was_committed(commit):
            return
        connection = await self._writing()
        self._doubt = commit  # a reply that is lost leaves it
        try:
            async with watched(connection, self._dsn):
                await connection.execute(CALL, *self._batches.arguments(commit))
        except Exception as error:
            blame = _blame(error)
            if isinstance(blame, Unavailable):
                connection.terminate()
                if await self._was_committed(commit):
                    return
            else:
                self._doubt = None
            raise blame from error
        self._doubt = None

    async def settled(self, commit: Commit) -> bool:
        """See `Journal.settled`."""
        if self._doubt is None:
            await self._head("read_head")
            return False
        return await self._was_committed(commit)

    async def _was_committed(self, commit: Commit) -> bool:
        """Whether the doubtful batch is in: once nobody holds the head, it says so exactly.

        The session that sent the COMMIT may still be at it. Until it has ended, the doubt stays (`Unavailable`).
        """
        head = await self._head("settled_head")
        self._doubt = None
        if head == commit.after:
            return True
        if head != commit.before:
            raise Fenced("the journal's head is neither before nor after the batch in doubt")
        return False

    async def _writing(self) -> "asyncpg.Connection[Any]":
        if self._writer is None or self._writer.is_closed():
            made = await connect(self._dsn, epoch=self._epoch, by_key=True, role=self._role)
            try:
                await made.execute(self._batches.function)
            except Exception as error:
                made.terminate()
                raise Unavailable(f"Postgres: {classify(error)}") from error
            self._writer = made
        return self._writer

    async def closed(self) -> dict[str, str]:
        """See `Journal.closed`."""
        shut = {row["name"] for row in await self._reader.ask("closed_tables")}
        kinds = {kind: table for kind, table in self._tables.items() if table in shut}
        rows = {table_of(row).name for row in self._rows} | {table_of(MessageRow).name}
        return kinds | {name: name for name in rows & shut}

    async def aclose(self) -> None:
        """Close all connections."""
        await close(self._writer)
        await super().aclose()


def journal_of(dsn: str, epoch: int, domains: Sequence[Domain], *, role: str = "") -> PostgresJournal:
    """The journal of a runtime with these domains."""
    tables = {kind.name: kind.table for domain in domains for kind in domain.kinds}
    return PostgresJournal(dsn, epoch, tables, rows_of(domains), role=role)


def _blame(error: Exception) -> TurnFailed | Fenced | Unavailable:
    if isinstance(error, asyncpg.PostgresError):
        if own := blame_of(error):
            return own
        if isinstance(error, asyncpg.LockNotAvailableError) and HEAD in (error.context or ""):
            return Unavailable("another session holds the journal's head")  # no turn is to blame
    return classify(error)
