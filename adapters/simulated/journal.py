"""The journal of a simulated world: serial commits on one head over tables in memory, with lost replies and refusals.

The database outlives its journals: a `Database` is kept when a runtime dies, and the next one opens it anew.
"""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from adapters.simulated.faults import CALM, Faults, Links
from adapters.simulated.locks import Locks
from adapters.simulated.tables import Tables
from amends.domain.domain import Domain, rows_of
from amends.domain.kinds import ActorKind
from amends.ports.journal import Commit, Head, KeptReply, Requirement, RowT, StateWrite, StoredActor, StoredEvent
from amends.values.canonical import ZERO_HASH
from amends.values.errors import CONSUMED, REQUIREMENT, Fenced, Locked, Refused, Unavailable
from amends.values.records import AuditRow, CaseRow, MessageRow, OutboxRow
from amends.values.tables import table_of

Refusal = Callable[[Commit], Exception | None]
KEPT = ("tables", "head", "lease", "newest_us", "documents", "commits")
LOCK_S = 0.05  # a statement waits so long for a lock


class LeaseRow(Struct, frozen=True):
    """Who may act, and when that was last said."""

    epoch: int = 0
    holder: str = ""
    renewed_s: float = 0.0


class Database:
    """What is kept. `refuse` is asked about each commit, as triggers would be; `locks`: what foreign sessions hold."""

    def __init__(self, domains: Sequence[Domain]) -> None:
        self.kinds: Mapping[str, ActorKind] = {kind.name: kind for domain in domains for kind in domain.kinds}
        self._epochs = {name: msgspec.json.Decoder(kind.state_type) for name, kind in self.kinds.items()}
        self.types = rows_of(domains)
        self.tables = Tables({name: kind.table for name, kind in self.kinds.items()}, self.types)
        self.head = Head(0, 0, 0, ZERO_HASH)
        self.lease = LeaseRow()
        self.newest_us = 0
        self.documents: dict[str, tuple[str, str]] = {}
        self.commits: list[Commit] = []
        self.away = False
        self.refuse: Refusal = lambda commit: None
        self.locks = Locks()

    def begin_epoch(self, epoch: int) -> None:
        """A runtime takes over the journal: commits of an older epoch fail from here on."""
        self.head = msgspec.structs.replace(self.head, epoch=max(self.head.epoch, epoch))

    def take_lease(self, holder: str, now_s: float) -> None:
        """It is this one's now, with an epoch of its own."""
        self.lease = LeaseRow(self.lease.epoch + 1, holder, now_s)

    def renew_lease(self, epoch: int, now_s: float) -> bool:
        """Whether it is still that epoch's: then it is renewed."""
        if self.lease.epoch == epoch:
            self.lease = msgspec.structs.replace(self.lease, renewed_s=now_s)
        return self.lease.epoch == epoch

    def give_lease(self, epoch: int) -> None:
        """Nobody holds it any more, if it was that epoch's."""
        if self.lease.epoch == epoch:
            self.lease = msgspec.structs.replace(self.lease, holder="")

    def backup(self) -> dict[str, Any]:
        """A copy of all that is kept, as a dump has it."""
        return copy.deepcopy({name: getattr(self, name) for name in KEPT})

    def put_back(self, backup: dict[str, Any]) -> None:
        """An older copy takes the place of what is kept; whoever had the lease then has ended."""
        for name, value in copy.deepcopy(backup).items():
            setattr(self, name, value)

    def raise_lease(self, epoch: int, to: int, kind: str, body: str) -> bool:
        """Whether it was that epoch's: then it goes up, nobody holds it, and there is a document that says so."""
        if self.lease.epoch != epoch:
            return False
        self.lease = LeaseRow(to)
        self.documents[f"{kind} {to}"] = (kind, body)
        return True

    def mark_restored(self, kind: str, by: int, mark: Callable[[int], str]) -> None:
        """The lease's epoch goes up, nobody holds it, and there is a document that says so, of that new epoch."""
        self.lease = LeaseRow(self.lease.epoch + by)
        self.documents[f"{kind} {self.lease.epoch}"] = (kind, mark(self.lease.epoch))

    def write(self, commit: Commit) -> None:
        """All of it or nothing; raises `Fenced`, `Refused`."""
        if self.head != commit.before:
            raise Fenced(f"the journal has moved on: {commit.before} is not its head")
        refused = self.refuse(commit)
        if refused is not None:
            raise refused
        try:
            self._write(commit)
        except Refused:
            self.tables.rollback()
            raise
        self.tables.commit()
        self.head = commit.after
        audits = (row for row, _ in commit.rows.get(AuditRow, ()))
        self.newest_us = max(self.newest_us, *(row.at_us for row in audits if isinstance(row, AuditRow)), 0)
        self.commits.append(commit)

    def _write(self, commit: Commit) -> None:
        if not all(self._holds(requirement) for requirement in commit.requires):
            raise Refused(REQUIREMENT, "what the turn requires of another entity does not hold")
        for message_id in commit.consumed:
            if not self.tables.remove("message", (message_id,)):
                raise Refused(CONSUMED, "a message of the batch was taken in before")
        for write in commit.states:
            self.tables.write_state(write)
        for row in sorted(commit.rows, key=self.types.index):
            for each, seq in commit.rows[row]:
                self.tables.write(each, seq)

    def _holds(self, requirement: Requirement) -> bool:
        kind, identifier, states, epoch = requirement
        found = self.tables.states.get((kind, identifier))
        if found is None or found.state not in states:
            return False
        return epoch is None or self._epochs[kind].decode(found.body).epoch == epoch

    def events(self, keep: Callable[[dict[str, Any]], bool]) -> list[StoredEvent]:
        """Outbox rows that are kept, in the order they were committed."""
        found = [row for row in self.tables.rows["outbox"].values() if keep(row)]
        return [_event(row) for row in sorted(found, key=lambda row: (row["jseq"], row["outbox_id"]))]


class SimulatedJournal:
    """Implements `amends.ports.journal.Journal` for the runtime of one epoch. `faults` is passed at every call."""

    def __init__(
        self, database: Database, epoch: int, now_us: Callable[[], int], faults: Faults = CALM,
        links: Links | None = None,
    ) -> None:  # fmt: skip
        self._kept, self._epoch, self._now_us, self._faults = database, epoch, now_us, faults
        self._links = links or Links()

    # --- writing -------------------------------------------------------------------------------------

    async def commit(self, commit: Commit) -> None:
        """See `Journal.commit`. Whatever `faults` raises afterwards leaves doubt."""
        what = f"commit {_named(commit)}"
        await self._reached(what)
        try:
            if self._kept.head != commit.after:  # the reply to it was lost before
                await self._at_head()
                if met := self._met(commit):
                    await asyncio.sleep(LOCK_S)
                    raise Locked(f"a foreign session holds {met}")
                self._kept.write(commit)
        finally:
            await self._replied(what)

    async def settled(self, commit: Commit) -> bool:
        """See `Journal.settled`."""
        await self._at_head()
        head = await self.head()
        if head not in (commit.before, commit.after):
            raise Fenced("the journal's head is neither before nor after the batch in doubt")
        return head == commit.after

    async def closed(self) -> dict[str, str]:
        """See `Journal.closed`."""
        await self._read("closed")
        shut, kinds = self._kept.locks.shut, self._kept.kinds.values()
        types: list[type[Struct]] = [*self._kept.types, MessageRow]
        ours = {table_of(row).name for row in types}
        return {kind.name: kind.table for kind in kinds if kind.table in shut} | {each: each for each in ours & shut}

    async def locked(self, writes: Sequence[StateWrite]) -> set[tuple[str, str]]:
        """See `Journal.locked`."""
        await self._reached("read locked")
        if barred := {self._kept.kinds[write.kind].table for write in writes} & self._kept.locks.barred:
            await asyncio.sleep(LOCK_S)
            raise Locked(f"a foreign session holds {sorted(barred)}")
        await self._replied("read locked")
        return {(write.kind, write.id) for write in writes} & self._kept.locks.rows

    def _met(self, commit: Commit) -> str:
        """What a foreign session holds of all that a commit writes, "" for nothing."""
        kinds, locks = self._kept.kinds, self._kept.locks
        tables = {table_of(row).name for row in commit.rows} | {kinds[each.kind].table for each in commit.states}
        tables |= {kinds[kind].table for kind, _, _, _ in commit.requires} & locks.barred
        if commit.consumed:
            tables.add(table_of(MessageRow).name)
        rows = {(write.kind, write.id) for write in commit.states}
        return locks.met(tables, rows | {(kind, identifier) for kind, identifier, _, _ in commit.requires})

    # --- reading -------------------------------------------------------------------------------------

    async def head(self) -> Head:
        """See `Journal.head`."""
        await self._read("head")
        if self._kept.head.epoch != self._epoch:
            raise Fenced(f"the journal belongs to epoch {self._kept.head.epoch}, not to {self._epoch}")
        return self._kept.head

    async def newest_us(self) -> int:
        """See `Journal.newest_us`."""
        await self._read("newest instant")
        return self._kept.newest_us

    async def server_us(self) -> int:
        """See `Journal.server_us`."""
        await self._read("server clock")
        return self._now_us()

    async def read_actor(self, kind: str, identifier: str) -> StoredActor | None:
        """See `Journal.read_actor`."""
        await self._read(f"{kind}:{identifier}", self._kept.kinds[kind].table)
        found = self._kept.tables.states.get((kind, identifier))
        return _actor(found) if found is not None else None

    async def live_actors(self, kind: str) -> AsyncIterator[list[StoredActor]]:
        """See `Journal.live_actors`."""
        await self._read(f"live {kind}", self._kept.kinds[kind].table)
        states = sorted(self._kept.tables.states.items())
        if found := [_actor(write) for (of, _), write in states if of == kind and write.live]:
            yield found

    async def live_rows(self, row: type[RowT]) -> AsyncIterator[list[RowT]]:
        """See `Journal.live_rows`."""
        await self._read(f"live {row.__name__}", table_of(row).name)
        if found := [each for each in self._kept.tables.live(row) if isinstance(each, row)]:
            yield found

    async def rows_after(self, row: type[RowT], us: int) -> AsyncIterator[list[RowT]]:
        """See `Journal.rows_after`."""
        table = table_of(row)
        await self._read(f"{row.__name__} after an instant", table.name)
        rows = self._kept.tables.rows[table.name].values()
        if found := [_made(row, each) for each in rows if (each[table.after] or 0) > us]:
            yield found

    async def find(self, row: type[RowT], key: str) -> RowT | None:
        """See `Journal.find`."""
        table = table_of(row)
        await self._read(f"{row.__name__} {key}", table.name)
        found = self._kept.tables.rows[table.name].get((key,))
        return _made(row, found) if found is not None else None

    async def documents(self, kind: str) -> dict[str, bytes]:
        """See `Journal.documents`."""
        await self._read(f"documents {kind}", "document")
        return {sha256: body.encode() for sha256, (of, body) in self._kept.documents.items() if of == kind}

    async def kept(self, callers: Sequence[str], keys: Sequence[str]) -> list[KeptReply]:
        """See `Journal.kept`."""
        await self._read("kept replies", "command_reply")
        asked = set(zip(callers, keys, strict=True))
        rows = (row for row in self._kept.tables.rows["command_reply"].values() if (row["caller"], row["key"]) in asked)
        return [_made(KeptReply, row) for row in rows]

    async def case(self, case_id: str) -> CaseRow | None:
        """See `Journal.case`."""
        await self._read(case_id, "ops_case")
        found = self._kept.tables.rows["ops_case"].get((case_id,))
        return _made(CaseRow, found) if found is not None else None

    # --- events --------------------------------------------------------------------------------------

    async def waiting_events(
        self, stream: str, up_to: int, limit: int, without: Sequence[str] = ()
    ) -> list[StoredEvent]:
        """See `Journal.waiting_events`."""
        await self._read("waiting events", "outbox")
        shut = {*without, *(event.row.entity for event in self._kept.events(lambda row: row["state"] == "parked"))}
        return self._kept.events(
            lambda row: row["state"] == "pending" and row["stream"] == stream and row["jseq"] <= up_to
            and row["entity"] not in shut
        )[:limit]  # fmt: skip

    async def parked_events(self, stream: str) -> list[tuple[str, str]]:
        """See `Journal.parked_events`."""
        await self._read("parked events", "outbox")
        found = self._kept.events(lambda row: row["state"] == "parked" and row["stream"] == stream)
        return [(event.row.outbox_id, event.row.entity) for event in found]

    async def count_events(self, stream: str, entity: str = "") -> int:
        """See `Journal.count_events`."""
        await self._read("count of events", "outbox")
        pending = self._kept.events(lambda row: row["state"] == "pending" and row["stream"] == stream)
        return sum(entity in ("", event.row.entity) for event in pending)

    async def events(self, stream: str, ids: Sequence[str]) -> list[StoredEvent]:
        """See `Journal.events`."""
        await self._read("events", "outbox")
        return self._kept.events(lambda row: row["outbox_id"] in ids and stream in ("", row["stream"]))

    async def published_events(self, stream: str, after: tuple[int, str], until_us: int, limit: int) -> list[OutboxRow]:
        """See `Journal.published_events`."""
        await self._read("published events", "outbox")
        found = self._kept.events(
            lambda row: row["state"] == "published" and row["stream"] == stream
            and after < (row["created_us"], row["outbox_id"]) and row["created_us"] <= until_us
        )  # fmt: skip
        return sorted((event.row for event in found), key=lambda row: (row.created_us, row.outbox_id))[:limit]

    # --- beside the chain ----------------------------------------------------------------------------

    async def store_document(self, kind: str, sha256: str, body: str, at_us: int) -> None:
        """See `Journal.store_document`."""
        await self._reached(f"document {kind}")
        self._kept.documents.setdefault(sha256, (kind, body))
        await self._replied(f"document {kind}")

    async def forget(self, before_us: int) -> int:
        """See `Journal.forget`: replies alone."""
        await self._reached("forget")
        rows = self._kept.tables.rows["command_reply"]
        old = [key for key, row in rows.items() if row["received_us"] < before_us]
        for key in old:
            self._kept.tables.remove("command_reply", key)
        self._kept.tables.commit()
        return len(old)

    async def tidy(self, before_us: int) -> None:
        """See `Journal.tidy`: memory has no months, and its checks look at everything."""
        await self._reached("tidy")

    async def aclose(self) -> None:
        """Nothing is open."""

    async def _reached(self, what: str) -> None:
        await self._faults.before(what)
        if self._kept.away or not self._links.journal:
            raise Unavailable("the simulated database is away")

    async def _at_head(self) -> None:
        if self._kept.locks.head:
            await asyncio.sleep(LOCK_S)
            raise Unavailable("another session holds the journal's head")

    async def _replied(self, what: str) -> None:
        await self._faults.after(what)
        if not self._links.journal:
            raise Unavailable("the simulated database has not answered")

    async def _read(self, what: str, table: str = "") -> None:
        await self._reached(f"read {what}")
        if table in self._kept.locks.barred:
            await asyncio.sleep(LOCK_S)
            raise Unavailable(f"a foreign session lets nobody read {table}")
        await self._replied(f"read {what}")


def _named(commit: Commit) -> str:
    """What the commit says, for people: states, or the kinds of rows."""
    states: Iterable[str] = (f"{write.kind} {write.state}" for write in commit.states)
    return ", ".join(sorted(set(states))) or ", ".join(sorted(row.__name__ for row in commit.rows)) or "nothing"


def _actor(found: StateWrite) -> StoredActor:
    return StoredActor(found.id, found.due_us, found.body.encode())


def _made(kind: type[RowT], row: dict[str, Any]) -> RowT:
    return kind(**{name: row[name] for name in kind.__struct_fields__})


def _event(row: dict[str, Any]) -> StoredEvent:
    return StoredEvent(_made(OutboxRow, row), row["state"], row["attempts"])
