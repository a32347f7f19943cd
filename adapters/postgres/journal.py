"""The journal: one transaction per batch, beginning with the compare-and-set of the one head.

A lost reply to COMMIT is settled by reading the head back: it tells exactly whether the batch is in. No database
call is ever cancelled; after an exception that leaves doubt the connection is cut and made anew.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import asyncpg
from msgspec import Struct
from msgspec.structs import astuple

from adapters.postgres.connect import classify, close, connect
from adapters.postgres.statements import statement
from amends.ports.journal import Commit, Head, StateWrite, StoredActor
from amends.values.errors import CONSUMED, Fenced, Refused, Unavailable

_WRITES = re.compile(r"^(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)", re.MULTILINE)


class PostgresJournal:
    """Implements `amends.ports.Journal`. `tables`: the state table of each actor kind; `role`: what it works as."""

    def __init__(
        self, dsn: str, epoch: int, tables: Mapping[str, str], order: Sequence[str], *, role: str = ""
    ) -> None:
        self._dsn, self._epoch, self._tables, self._role = dsn, epoch, tables, role
        self._order = {name: place for place, name in enumerate(order)}
        self._writer: asyncpg.Connection[Any] | None = None
        self._reader: asyncpg.Connection[Any] | None = None
        self._reading = asyncio.Lock()
        self._doubt: Commit | None = None

    # --- writing -------------------------------------------------------------------------------------

    async def head(self) -> Head:
        """Where the journal stands; raises `Fenced` when it belongs to a higher epoch."""
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
        """See `amends.ports.Journal.commit`."""
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
        """See `amends.ports.Journal.settled`."""
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
        if commit.consumed:
            gone = await connection.execute(statement("consume"), commit.consumed)
            if _count(gone) != len(commit.consumed):
                raise Refused(CONSUMED, "a message of the batch was taken in before")
        for table, writes in self._by_table(commit.states).items():
            done = await connection.execute(statement(f"state_{table}"), *_columns(_state_rows(table, writes)))
            if _count(done) != len(writes):
                raise Refused("version", f"{table}: a row has another version than the one decided on")
        for name in sorted(commit.rows, key=self._order.__getitem__):
            rows = commit.rows[name]
            await connection.execute(statement(name), *_columns((*astuple(row), seq) for row, seq in rows))

    def _by_table(self, states: Iterable[StateWrite]) -> dict[str, list[StateWrite]]:
        grouped: dict[str, list[StateWrite]] = {}
        for write in states:
            grouped.setdefault(self._tables[write.kind], []).append(write)
        return grouped

    async def _writing(self) -> "asyncpg.Connection[Any]":
        if self._writer is None or self._writer.is_closed():
            self._writer = await connect(self._dsn, epoch=self._epoch, by_key=True, role=self._role)
        return self._writer

    # --- reading -------------------------------------------------------------------------------------

    async def closed(self) -> dict[str, str]:
        """See `amends.ports.Journal.closed`."""
        tables = {row["name"] for row in await self._fetch("closed_tables")}
        if not tables:
            return {}
        found = {kind: table for kind, table in self._tables.items() if table in tables}
        return found | {
            name: table.group(1)
            for name in (*self._order, "consume")
            if (table := _WRITES.search(statement(name))) is not None and table.group(1) in tables
        }

    async def locked(self, writes: Sequence[StateWrite]) -> set[tuple[str, str]]:
        """See `amends.ports.Journal.locked`."""
        held: set[tuple[str, str]] = set()
        by_kind: dict[str, list[str]] = {}
        for write in writes:
            by_kind.setdefault(write.kind, []).append(write.id)
        for kind, ids in by_kind.items():
            table = self._tables[kind]
            args = (kind, ids) if table == "actors" else (ids,)
            free = {row["id"] for row in await self._fetch(f"free_{table}", *args)}
            held.update((kind, identifier) for identifier in ids if identifier not in free)
        return held

    async def read_actor(self, kind: str, identifier: str) -> StoredActor | None:
        """See `amends.ports.Journal.read_actor`."""
        table = self._tables[kind]
        args = (kind, identifier) if table == "actors" else (identifier,)
        rows = await self._fetch(f"read_{table}", *args)
        return StoredActor(identifier, 0, rows[0]["body"].encode()) if rows else None

    async def live_actors(self, kind: str) -> "list[asyncpg.Record]":
        """id, due_us and body of every actor of the kind that lives or owes."""
        table = self._tables[kind]
        return await self._fetch(f"live_{table}", *((kind,) if table == "actors" else ()))

    async def fetch(self, name: str, *args: Any) -> "list[asyncpg.Record]":
        """A named read; raises `Unavailable`."""
        return await self._fetch(name, *args)

    async def execute(self, name: str, *args: Any) -> None:
        """A named statement outside the journal (documents, forgetting old replies)."""
        await self._fetch(name, *args)

    async def _fetch(self, name: str, *args: Any) -> "list[asyncpg.Record]":
        async with self._reading:
            if self._reader is None or self._reader.is_closed():
                self._reader = await connect(self._dsn, epoch=self._epoch, role=self._role)
            try:
                return await self._reader.fetch(statement(name), *args)
            except Exception as error:
                blame = classify(error)
                if isinstance(blame, Unavailable):
                    self._reader.terminate()
                raise blame from error

    async def aclose(self) -> None:
        """Close both connections."""
        await close(self._writer)
        await close(self._reader)


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True))


def _state_rows(table: str, writes: list[StateWrite]) -> Iterable[tuple[Any, ...]]:
    if table == "actors":
        return (astuple(write) for write in writes)
    return ((w.id, w.state, w.version, w.due_us, w.body) for w in writes)


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])


def _newest_us(commit: Commit) -> int:
    """The newest time in the batch: the high-water mark of the clock."""
    newest = 0
    for row, _ in commit.rows.get("write_audit_log", ()):
        newest = max(newest, _at_us(row))
    return newest


def _at_us(row: Struct) -> int:
    return int(getattr(row, "at_us", 0))
