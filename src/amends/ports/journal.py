"""The journal: where turns become true and are read back, and the data that crosses."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct

from amends.values.canonical import ZERO_HASH
from amends.values.records import AuditDraft, CaseRow, OutboxRow

RowT = TypeVar("RowT", bound=Struct)


# Of another entity, as it stands when the turn commits: kind, id, the states it may be in, and its epoch or None.
Requirement = tuple[str, str, tuple[str, ...], int | None]


class Turn:
    """One actor's turn as rows: what one transaction writes or does not write at all."""

    __slots__ = (
        "audits", "body", "consumed", "due_us", "ended_state", "id", "kind", "live", "requires", "rows", "set_aside",
        "spawned", "state", "version",
    )  # fmt: skip

    def __init__(self) -> None:
        self.kind = ""  # "": a turn without an actor's state (a refused command, a bulk mark)
        self.id = ""
        self.state = ""
        self.version = 0  # the version being written; 1 for a new actor
        self.body = ""
        self.due_us: int | None = None
        self.live = True  # see `StateWrite`, as the next
        self.ended_state: str | None = None
        self.requires: list[Requirement] = []
        self.rows: list[Struct] = []
        self.audits: list[AuditDraft] = []
        self.consumed = ""  # the durable message this turn takes in
        self.set_aside: list[str] = []  # durable messages that it takes away beside it
        self.spawned: list[StateWrite] = []


class StateWrite(Struct):
    """One actor's committed state as a row: compare-and-set on `version` - 1.

    `live`: a start reads it, for it has not ended or still owes something; `ended_state`: the state it has ended in.
    """

    kind: str
    id: str
    state: str
    version: int
    due_us: int | None
    body: str
    live: bool = True
    ended_state: str | None = None


class Head(Struct, frozen=True):
    """The journal's head: fence, commit order, audit chain and the chain of all rows' digests in one row."""

    epoch: int
    seq: int
    audit_seq: int
    hash: str
    digest: str = ZERO_HASH


class Commit(Struct):
    """A sealed batch: rows by type, each row with the sequence number of its turn, and the digests of all.

    `requires`: what must hold of other entities before any of it is written.
    """

    before: Head
    after: Head
    states: list[StateWrite]
    consumed: list[str]
    rows: dict[type[Struct], list[tuple[Struct, int]]]
    leaves: str = "{}"
    requires: list[Requirement] = []


class StoredActor(Struct, frozen=True):
    """An actor as read back; `due_us` is when its first timer is due."""

    id: str
    due_us: int | None
    body: bytes


class StoredEvent(Struct, frozen=True):
    """An event as read back, with what publishing has come to so far."""

    row: OutboxRow
    state: str
    attempts: int


class KeptReply(Struct, frozen=True):
    """What was answered to an idempotency key before."""

    caller: str
    key: str
    body_hash: str
    request_id: str
    trace_id: str
    http: int
    reply: str


class Commits(Protocol):
    """Where a writer's batches go."""

    async def commit(self, commit: Commit) -> None:
        """Write the batch in one transaction.

        Raises `Refused` or `Locked` (nothing written; divide the batch), `Fenced` (stop), `Unavailable` (nothing
        is known to be wrong with the batch; a lost commit reply was settled by reading the head back).
        """
        ...

    async def settled(self, commit: Commit) -> bool:
        """Whether a batch that met `Unavailable` is in after all; raises `Unavailable` until that can be told."""
        ...

    async def closed(self) -> dict[str, str]:
        """Actor kinds and tables that a foreign session lets nobody write, with the table's name; raises `Locked`."""
        ...

    async def locked(self, writes: Sequence[StateWrite]) -> set[tuple[str, str]]:
        """Of these actors, the (kind, id) whose row a foreign session holds right now; raises `Locked`. Never waits."""
        ...


class Journal(Commits, Protocol):
    """The one place where turns become true."""

    # --- reading: all raise `Unavailable`, also where a foreign session locks what is read -----------

    async def head(self) -> Head:
        """Where the journal stands; raises `Fenced` when it belongs to a higher epoch."""
        ...

    async def newest_us(self) -> int:
        """The high-water mark of the runtime's clock: the newest instant that is committed."""
        ...

    async def server_us(self) -> int:
        """What time it is where the journal is kept."""
        ...

    async def read_actor(self, kind: str, identifier: str) -> StoredActor | None:
        """One actor's committed state."""
        ...

    def live_actors(self, kind: str) -> AsyncIterator[list[StoredActor]]:
        """All actors of a kind that live or owe, in parts small enough to be gone through at once."""
        ...

    def live_rows(self, row: type[RowT]) -> AsyncIterator[list[RowT]]:
        """The live rows of a type that declares which are, in parts, as they were committed."""
        ...

    def rows_after(self, row: type[RowT], us: int) -> AsyncIterator[list[RowT]]:
        """The rows of a type that declares by which column, in which that lies after an instant, in parts."""
        ...

    async def find(self, row: type[RowT], key: str) -> RowT | None:
        """The row of that key, of a type that declares that it is asked for so (`Table.found`)."""
        ...

    async def documents(self, kind: str) -> dict[str, bytes]:
        """All documents of a kind that were ever stored, as JSON, by their hashes."""
        ...

    async def kept(self, callers: Sequence[str], keys: Sequence[str]) -> list[KeptReply]:
        """What was answered to these keys of these callers."""
        ...

    async def case(self, case_id: str) -> CaseRow | None:
        """One operator case."""
        ...

    # --- events on their way to the bus --------------------------------------------------------------

    async def waiting_events(
        self, stream: str, up_to: int, limit: int, without: Sequence[str] = ()
    ) -> list[StoredEvent]:
        """The oldest unpublished events up to a turn, without some entities' and what stands behind a parked one."""
        ...

    async def parked_events(self, stream: str) -> list[tuple[str, str]]:
        """(outbox id, entity) of the events that the bus refuses and that wait for a person."""
        ...

    async def count_events(self, stream: str, entity: str = "") -> int:
        """How many events (of one entity) are not yet acknowledged."""
        ...

    async def events(self, stream: str, ids: Sequence[str]) -> list[StoredEvent]:
        """These events of a stream; "" is any stream."""
        ...

    async def published_events(self, stream: str, after: tuple[int, str], until_us: int, limit: int) -> list[OutboxRow]:
        """Published events in the order of (instant, id) after that place, up to an instant."""
        ...

    # --- beside the chain ----------------------------------------------------------------------------

    async def store_document(self, kind: str, sha256: str, body: str, at_us: int) -> None:
        """Keep a matrix or a policy whole under its hash."""
        ...

    async def forget(self, before_us: int) -> int:
        """Let go of some of what was answered before that instant; returns how much, 0 when nothing is left."""
        ...

    async def tidy(self, before_us: int) -> None:
        """Make room for the months to come; what was found in order up to that instant is not looked at again."""
        ...
