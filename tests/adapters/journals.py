"""A journal of either kind, real or simulated, with turns to commit to it and a foreign session beside it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import asyncpg
import msgspec
import pytest
from msgspec import Struct

from adapters.postgres.journal import journal_of
from adapters.simulated.journal import Database as Simulated
from adapters.simulated.journal import SimulatedJournal
from adapters.simulated.locks import Locks
from amends.domain.domain import rows_of
from amends.ports.journal import Commit, Journal, Turn
from amends.turn.seal import seal
from amends.values.records import (
    AuditDraft,
    CommandRow,
    MessageRow,
    OutboxRow,
    ReplyRow,
    StepRow,
)
from supervisors.rental import RENTAL
from tests.adapters.postgres.database import Database

TYPES = rows_of((RENTAL,))
KINDS = {kind.name: kind for kind in RENTAL.kinds}
STREAM = "AMENDS_EVT"


class Foreign(Protocol):
    """A session of somebody else, which holds what it locks until it is told to let go."""

    async def row(self, node_id: str) -> None: ...

    async def table(self, name: str, *, reads: bool = False) -> None: ...

    async def head(self) -> None: ...

    async def free(self) -> None: ...


class Bench:
    """A journal, and turns that are committed to it; beside it a foreign session."""

    def __init__(
        self, journal: Journal, at_epoch: Callable[[int], Journal], begin: Callable[[int], Awaitable[None]],
        look: Callable[[str], Awaitable[list[dict[str, Any]]]], foreign: Foreign,
    ) -> None:  # fmt: skip
        self.journal, self.at_epoch, self.begin, self.look = journal, at_epoch, begin, look
        self.foreign = foreign

    async def sealed(self, *turns: Turn) -> Commit:
        return seal(turns, await self.journal.head(), TYPES)

    async def rows(self, *turns: list[Struct], consumed: str = "") -> Commit:
        """One commit of turns that only write rows."""
        made = []
        for rows in turns:
            turn = Turn()
            turn.rows, turn.consumed = list(rows), consumed
            made.append(turn)
        commit = await self.sealed(*made)
        await self.journal.commit(commit)
        return commit

    async def live(self, row: type[Any]) -> list[Any]:
        return [each async for part in self.journal.live_rows(row) for each in part]


class SimulatedForeign:
    def __init__(self, locks: Locks) -> None:
        self._locks = locks

    async def row(self, node_id: str) -> None:
        self._locks.rows.add(("node", node_id))

    async def table(self, name: str, *, reads: bool = False) -> None:
        self._locks.lock(name, reads=reads)

    async def head(self) -> None:
        self._locks.head = True

    async def free(self) -> None:
        self._locks.free()


class RealForeign:
    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: asyncpg.Connection[Any] | None = None

    async def _hold(self, statement: str) -> None:
        if self._connection is None:
            self._connection = await asyncpg.connect(self._dsn)
        if not self._connection.is_in_transaction():
            await self._connection.execute("BEGIN")
        await self._connection.execute(statement)

    async def row(self, node_id: str) -> None:
        await self._hold(f"SELECT FROM nodes WHERE node_id = '{node_id}' FOR UPDATE")

    async def table(self, name: str, *, reads: bool = False) -> None:
        await self._hold(f"LOCK TABLE {name} IN {'ACCESS EXCLUSIVE' if reads else 'SHARE'} MODE")

    async def head(self) -> None:
        await self._hold("SELECT FROM journal_head FOR UPDATE")

    async def free(self) -> None:
        if self._connection is not None:
            await self._connection.execute("ROLLBACK")

    async def aclose(self) -> None:
        if self._connection is not None:
            await self._connection.close()


@pytest.fixture
async def simulated() -> Bench:
    kept = Simulated((RENTAL,))
    kept.begin_epoch(1)

    async def begin(epoch: int) -> None:
        kept.begin_epoch(epoch)

    async def look(table: str) -> list[dict[str, Any]]:
        if table == "document":
            return [{"sha256": sha256, "kind": kind} for sha256, (kind, _) in kept.documents.items()]
        return list(kept.tables.rows[table].values())

    journal = SimulatedJournal(kept, 1, lambda: 1)
    foreign = SimulatedForeign(kept.locks)
    return Bench(journal, lambda epoch: SimulatedJournal(kept, epoch, lambda: 1), begin, look, foreign)


@pytest.fixture
async def real(database: Database) -> AsyncIterator[Bench]:
    others = []

    def at_epoch(epoch: int) -> Journal:
        others.append(journal_of(database.dsn, epoch, (RENTAL,), role=database.role))
        return others[-1]

    async def begin(epoch: int) -> None:
        await database.force(f"UPDATE journal_head SET epoch = {epoch}")

    foreign = RealForeign(database.superuser_dsn)
    yield Bench(database.journal, at_epoch, begin, lambda table: database.all(f"SELECT * FROM {table}"), foreign)
    await foreign.aclose()
    for other in others:
        await other.aclose()


@pytest.fixture(params=["real", "simulated"])
def bench(request: pytest.FixtureRequest) -> Bench:
    found: Bench = request.getfixturevalue(request.param)
    return found


def state(kind: str, identifier: str, version: int = 1, name: str = "open", **body: Any) -> Turn:
    turn = Turn()
    turn.kind, turn.id, turn.state, turn.version = kind, identifier, name, version
    ended = KINDS[kind].is_end(name)
    turn.ended_state = name if ended else None
    turn.live = not ended or not body.keys().isdisjoint(("timers", "runs", "cases", "owing"))
    turn.body = msgspec.json.encode({"state": name, "version": version, **body}, order="sorted").decode()
    entry = AuditDraft(
        f"aud_{identifier}{version}", 7, "a", "made", f"{kind}:{identifier}", None, name, "", "", "t" * 32, "", 1, {}
    )
    turn.audits = [entry]
    return turn


def node(identifier: str, version: int = 1, name: str = "ready", key: str = "", **body: Any) -> Turn:
    return state("node", identifier, version, name, ssh_host_key=key or identifier, ssh_host="h", ssh_port=1,
                 registered_us=1, **body)  # fmt: skip


def message(message_id: str) -> MessageRow:
    return MessageRow(message_id, "node", "n1", "DebtSettled", "{}", "t", "s", "a", "r", 1)


def event(outbox_id: str, entity: str = "node:n1", created_us: int = 1) -> OutboxRow:
    return OutboxRow(outbox_id, entity, STREAM, "s", "{}", "t", "s", created_us)


def reply(key: str, received_us: int = 1) -> ReplyRow:
    return ReplyRow("shop", key, "h", "req_1", key * 32, key * 16, 200, '{"data":{}}', received_us)


def command(key: str, code: str = "") -> CommandRow:
    return CommandRow("shop", "cmd.account.create", "req_1", key * 32, key * 16, "", "account:a", 409 if code else 200,
                      code, 1, 2, 1)  # fmt: skip


def step(step_id: str) -> StepRow:
    return StepRow(step_id, "node:n1", "ssh.probe", 1, "intended", step_id, "node:n1", "{}", "{}", "t", "s", 1, None,
                   None, "", "", 1, "host", 22)  # fmt: skip
