"""The journal: one transaction per batch, beginning with the compare-and-set of the one head.

A lost reply to COMMIT is settled by reading the head back: it tells exactly whether the batch is in. No database
call is ever cancelled; after an exception that leaves doubt the connection is cut and made anew. Reading is `Stored`'s.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import asyncpg
from msgspec import Struct
from msgspec.structs import astuple

from adapters.postgres.connect import classify, close, connect
from adapters.postgres.statements import statement
from adapters.postgres.stored import Stored
from amends.domain.domain import Domain, rows_of
from amends.ports.journal import Commit, Head, StateWrite
from amends.values.errors import CONSUMED, REQUIREMENT, Fenced, Refused, Unavailable
from amends.values.records import AuditRow, MessageRow
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
        self._order = {row: place for place, row in enumerate(rows)}
        self._writer: asyncpg.Connection[Any] | None = None
        self._doubt: Commit | None = None

    async def head(self) -> Head:
        """See `Journal.head`."""
        return await self._head("read_head")

    async def _head(self, name: str) -> Head:
        connection = await self._writing()
        try:
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
        try:
            async with connection.transaction():
                await self._write(connection, commit)
                # From here the COMMIT is sent: a lost reply leaves doubt.
                self._doubt = commit
        except (Fenced, Refused):
            self._doubt = None
            raise
        except Unavailable:
            connection.terminate()
            raise
        except Exception as error:
            blame = classify(error)
            if isinstance(blame, Unavailable):
                connection.terminate()
                if self._doubt is not None and await self._was_committed(commit):
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

    async def _write(self, connection: "asyncpg.Connection[Any]", commit: Commit) -> None:
        after, before = commit.after, commit.before
        try:
            moved = await connection.execute(
                statement("advance_head"), after.seq, after.audit_seq, after.hash, _newest_us(commit), before.epoch,
                before.seq, after.digest, before.digest, commit.leaves,
            )  # fmt: skip
        except asyncpg.LockNotAvailableError as error:
            raise Unavailable("another session holds the journal's head") from error  # no turn is to blame
        if _count(moved) != 1:
            raise Fenced(f"the journal has moved on: epoch {before.epoch}, sequence {before.seq} is not its head")
        await self._check(connection, commit)
        if commit.consumed:
            gone = await connection.execute(statement("consume"), commit.consumed)
            if _count(gone) != len(commit.consumed):
                raise Refused(CONSUMED, "a message of the batch was taken in before")
        for table, writes in self._by_table(commit.states).items():
            done = await connection.execute(statement(f"state_{table}"), *_columns(_state_rows(table, writes)))
            if _count(done) != len(writes):
                raise Refused("version", f"{table}: a row has another version than the one decided on")
        for row in sorted(commit.rows, key=self._order.__getitem__):
            written = commit.rows[row]
            name = table_of(row).statement
            await connection.execute(statement(name), *_columns((*astuple(each), seq) for each, seq in written))

    async def _check(self, connection: "asyncpg.Connection[Any]", commit: Commit) -> None:
        """What the turns require of other entities holds, and stays so until the commit is done."""
        wanted: dict[str, set[tuple[Any, ...]]] = {}
        for kind, identifier, states, epoch in commit.requires:
            wanted.setdefault(self._tables[kind], set()).add((kind, identifier, ",".join(states), epoch))
        for table, rows in wanted.items():
            if len(await connection.fetch(statement(f"require_{table}"), *_columns(rows))) != len(rows):
                raise Refused(REQUIREMENT, f"{table}: what the turn requires of another entity does not hold")

    def _by_table(self, states: Iterable[StateWrite]) -> dict[str, list[StateWrite]]:
        grouped: dict[str, list[StateWrite]] = {}
        for write in states:
            grouped.setdefault(self._tables[write.kind], []).append(write)
        return grouped

    async def _writing(self) -> "asyncpg.Connection[Any]":
        if self._writer is None or self._writer.is_closed():
            self._writer = await connect(self._dsn, epoch=self._epoch, by_key=True, role=self._role)
        return self._writer

    async def closed(self) -> dict[str, str]:
        """See `Journal.closed`."""
        shut = {row["name"] for row in await self._reader.ask("closed_tables")}
        kinds = {kind: table for kind, table in self._tables.items() if table in shut}
        rows = {table_of(row).name for row in self._order} | {table_of(MessageRow).name}
        return kinds | {name: name for name in rows & shut}

    async def aclose(self) -> None:
        """Close all connections."""
        await close(self._writer)
        await super().aclose()


def journal_of(dsn: str, epoch: int, domains: Sequence[Domain], *, role: str = "") -> PostgresJournal:
    """The journal of a runtime with these domains."""
    tables = {kind.name: kind.table for domain in domains for kind in domain.kinds}
    return PostgresJournal(dsn, epoch, tables, rows_of(domains), role=role)


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True))


def _state_rows(table: str, writes: list[StateWrite]) -> Iterable[tuple[Any, ...]]:
    if table == "actors":
        return (astuple(write) for write in writes)
    return (astuple(write)[1:] for write in writes)


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])


def _newest_us(commit: Commit) -> int:
    """The newest time in the batch: the high-water mark of the clock."""
    audits = (row for row, _ in commit.rows.get(AuditRow, ()))
    return max((row.at_us for row in audits if isinstance(row, AuditRow)), default=0)
