"""Ports: what the runtime needs of the world, and the data that crosses. Adapters implement these protocols."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from amends.values.canonical import ZERO_HASH
from amends.values.records import AuditDraft


class Turn:
    """One actor's turn as rows: what one transaction writes or does not write at all."""

    __slots__ = (
        "audits", "body", "consumed", "due_us", "id", "kind", "rows", "set_aside", "spawned", "state", "version",
    )  # fmt: skip

    def __init__(self) -> None:
        self.kind = ""  # "": a turn without an actor's state (a refused command, a bulk mark)
        self.id = ""
        self.state = ""
        self.version = 0  # the version being written; 1 for a new actor
        self.body = ""
        self.due_us: int | None = None
        self.rows: list[Struct] = []
        self.audits: list[AuditDraft] = []
        self.consumed = ""  # the durable message this turn takes in
        self.set_aside: list[str] = []  # durable messages that it takes away beside it
        self.spawned: list[StateWrite] = []


class StateWrite(Struct):
    """One actor's committed state as a row: compare-and-set on `version` - 1."""

    kind: str
    id: str
    state: str
    version: int
    due_us: int | None
    body: str


class Head(Struct, frozen=True):
    """The journal's head: fence, commit order, audit chain and the chain of all rows' digests in one row."""

    epoch: int
    seq: int
    audit_seq: int
    hash: str
    digest: str = ZERO_HASH


class Commit(Struct):
    """A sealed batch: rows by statement, each row with the sequence number of its turn, and the digests of all."""

    before: Head
    after: Head
    states: list[StateWrite]
    consumed: list[str]
    rows: dict[str, list[tuple[Struct, int]]]
    leaves: str = "{}"


class StoredActor(Struct):
    """An actor as read back."""

    id: str
    version: int
    body: bytes


class Journal(Protocol):
    """The one place where turns become true."""

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
        """Actor kinds and statements whose table a foreign session lets nobody write, each with that table."""
        ...

    async def locked(self, writes: Sequence[StateWrite]) -> set[tuple[str, str]]:
        """Of these actors, the (kind, id) whose row a foreign session holds right now. Never waits."""
        ...

    async def read_actor(self, kind: str, identifier: str) -> StoredActor | None:
        """One actor's committed state."""
        ...
