"""What is committed, read back: actors, live rows, kept replies, events. Three connections, each asked in turn.

A long page of events or a look-up of kept replies never stands in the way of an actor that is read back.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from adapters.postgres.connect import classify, close, connect
from adapters.postgres.derived import after_name, columns_of, found_name, live_name
from adapters.postgres.silence import watched
from adapters.postgres.statements import statement
from amends.ports.journal import KeptReply, RowT, StateWrite, StoredActor, StoredEvent
from amends.values.errors import Locked, Unavailable
from amends.values.records import CaseRow, OutboxRow

PART = 1000  # rows of a part while a start reads
TIDY_S = 600.0


class Lane:
    """One connection, one question at a time; made anew when it has died."""

    def __init__(self, dsn: str, epoch: int, role: str, *, read_only: bool = False) -> None:
        self._dsn, self._epoch, self._role, self._read_only = dsn, epoch, role, read_only
        self._connection: asyncpg.Connection[Any] | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        """The connection, for the one whose turn it is; what goes wrong there is blamed as in a commit."""
        async with self._turn:
            if self._connection is None or self._connection.is_closed():
                self._connection = await connect(
                    self._dsn, epoch=self._epoch, role=self._role, read_only=self._read_only
                )
            try:
                yield self._connection
            except Exception as error:
                blame = classify(error)
                if isinstance(blame, Unavailable):
                    self._connection.terminate()
                raise blame from error

    async def fetch(self, name: str, *args: Any) -> "list[asyncpg.Record]":
        """A named statement; raises `Unavailable`, also where a foreign session locks the table, and `Refused`."""
        try:
            return await self.ask(name, *args)
        except Locked as error:
            raise Unavailable(f"Postgres: {error}") from error

    async def ask(self, name: str, *args: Any) -> "list[asyncpg.Record]":
        """The same for who wants to hear of locks: raises `Locked`."""
        async with self.connection() as connection, watched(connection, self._dsn):
            return await connection.fetch(statement(name), *args)

    async def aclose(self) -> None:
        """Close it."""
        await close(self._connection)


class Stored:
    """The reading half of the journal."""

    def __init__(self, dsn: str, epoch: int, tables: Mapping[str, str], role: str) -> None:
        self._dsn, self._epoch, self._tables, self._role = dsn, epoch, tables, role
        self._reader = Lane(dsn, epoch, role)
        self._events, self._replies = (Lane(dsn, epoch, role, read_only=True) for _ in range(2))

    async def fetch(self, name: str, *args: Any) -> "list[asyncpg.Record]":
        """A named statement that is no part of the port: cursors, what is set for the installation."""
        return await self._reader.fetch(name, *args)

    async def newest_us(self) -> int:
        """See `Journal.newest_us`."""
        return int((await self.fetch("read_head"))[0]["at_us"])

    async def server_us(self) -> int:
        """See `Journal.server_us`."""
        return int((await self.fetch("server_clock"))[0]["at_us"])

    async def locked(self, writes: Sequence[StateWrite]) -> set[tuple[str, str]]:
        """See `Journal.locked`."""
        held: set[tuple[str, str]] = set()
        by_kind: dict[str, list[str]] = {}
        for write in writes:
            by_kind.setdefault(write.kind, []).append(write.id)
        for kind, ids in by_kind.items():
            free = {row["id"] for row in await self._reader.ask(f"free_{self._tables[kind]}", *self._of(kind), ids)}
            held.update((kind, identifier) for identifier in ids if identifier not in free)
        return held

    async def read_actor(self, kind: str, identifier: str) -> StoredActor | None:
        """See `Journal.read_actor`."""
        rows = await self.fetch(f"read_{self._tables[kind]}", *self._of(kind), identifier)
        return StoredActor(identifier, rows[0]["due_us"], rows[0]["body"].encode()) if rows else None

    async def live_actors(self, kind: str) -> AsyncIterator[list[StoredActor]]:
        """See `Journal.live_actors`."""
        async for part in self._parts(f"live_{self._tables[kind]}", *self._of(kind)):
            yield [StoredActor(row["id"], row["due_us"], row["body"].encode()) for row in part]

    async def live_rows(self, row: type[RowT]) -> AsyncIterator[list[RowT]]:
        """See `Journal.live_rows`."""
        async for part in self._parts(live_name(row)):
            yield [row(*found) for found in part]

    async def rows_after(self, row: type[RowT], us: int) -> AsyncIterator[list[RowT]]:
        """See `Journal.rows_after`."""
        async for part in self._parts(after_name(row), us):
            yield [row(*found) for found in part]

    async def find(self, row: type[RowT], key: str) -> RowT | None:
        """See `Journal.find`."""
        found = await self.fetch(found_name(row), key)
        return row(*found[0]) if found else None

    async def documents(self, kind: str) -> dict[str, bytes]:
        """See `Journal.documents`."""
        return {row["sha256"]: row["body"].encode() for row in await self.fetch("read_documents", kind)}

    async def _parts(self, name: str, *args: Any) -> "AsyncIterator[list[asyncpg.Record]]":
        try:
            async with self._reader.connection() as connection, connection.transaction(readonly=True):
                cursor = await connection.cursor(statement(name), *args)
                while part := await cursor.fetch(PART):
                    yield part
        except Locked as error:
            raise Unavailable(f"Postgres: {error}") from error

    def _of(self, kind: str) -> tuple[str, ...]:
        """The first parameter of statements on the table that kinds share."""
        return (kind,) if self._tables[kind] == "actors" else ()

    async def kept(self, callers: Sequence[str], keys: Sequence[str]) -> list[KeptReply]:
        """See `Journal.kept`."""
        return [KeptReply(**dict(row)) for row in await self._replies.fetch("kept_replies", callers, keys)]

    async def case(self, case_id: str) -> CaseRow | None:
        """See `Journal.case`."""
        rows = await self.fetch("read_case", case_id)
        return CaseRow(**dict(rows[0])) if rows else None

    # --- events --------------------------------------------------------------------------------------

    async def waiting_events(
        self, stream: str, up_to: int, limit: int, without: Sequence[str] = ()
    ) -> list[StoredEvent]:
        """See `Journal.waiting_events`."""
        found = await self._events.fetch("waiting_outbox", stream, up_to, limit, list(without))
        return [_event(row) for row in found]

    async def parked_events(self, stream: str) -> list[tuple[str, str]]:
        """See `Journal.parked_events`."""
        return [(row["outbox_id"], row["entity"]) for row in await self._events.fetch("parked_outbox", stream)]

    async def count_events(self, stream: str, entity: str = "") -> int:
        """See `Journal.count_events`."""
        name, of = ("count_waiting_entity", (entity,)) if entity else ("count_waiting_outbox", ())
        return int((await self._events.fetch(name, stream, *of))[0]["waiting"])

    async def events(self, stream: str, ids: Sequence[str]) -> list[StoredEvent]:
        """See `Journal.events`."""
        return [_event(row) for row in await self._events.fetch("read_events", stream, list(ids))]

    async def published_events(self, stream: str, after: tuple[int, str], until_us: int, limit: int) -> list[OutboxRow]:
        """See `Journal.published_events`."""
        return [_event(row).row for row in await self._events.fetch("published_since", stream, *after, until_us, limit)]

    # --- beside the chain ----------------------------------------------------------------------------

    async def store_document(self, kind: str, sha256: str, body: str, at_us: int) -> None:
        """See `Journal.store_document`."""
        await self.fetch("store_document", sha256, kind, body, at_us)

    async def forget(self, before_us: int) -> int:
        """See `Journal.forget`."""
        return len(await self.fetch("forget_replies", before_us))

    async def tidy(self, before_us: int) -> None:
        """See `Journal.tidy`; on a connection of its own, for it may take a while."""
        lane = Lane(self._dsn, self._epoch, self._role)
        try:
            await lane.fetch("add_months")
            async with lane.connection() as connection, connection.transaction():
                await connection.execute(statement("unbounded"))
                await connection.execute(statement("advance_mark"), before_us, timeout=TIDY_S)
        finally:
            await lane.aclose()

    async def aclose(self) -> None:
        """Close what is open."""
        for lane in (self._reader, self._events, self._replies):
            await lane.aclose()


def _event(row: "asyncpg.Record") -> StoredEvent:
    return StoredEvent(OutboxRow(**{name: row[name] for name in columns_of(OutboxRow)}), row["state"], row["attempts"])
