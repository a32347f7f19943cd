"""The journal writer: turns of many actors share one commit; a refused or locked one stands alone.

Commits are serial on one head. Turns that arrive while a commit is under way form the next batch, so the batch
grows with the load and one turn alone waits for nothing. What follows a commit is carried out while the next one is at
the database: neither waits for the other. A lone turn's trouble is its own: a refused batch is
divided until the culprit stands alone, a locked one is set aside and asked after without waiting (R03).

What waited out an outage is not what was decided any more: the batch is taken apart and each turn decided anew before
it commits; so is one that opens a meter when it has waited longer than `RECENT_US`.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from amends.ports.journal import Commit, Commits, Head, Requirement, StateWrite, Turn
from amends.runtime.breaker import Breaker
from amends.turn.seal import seal
from amends.values.backoff import Backoff
from amends.values.errors import REQUIREMENT, Locked, Refused, TurnFailed, Unavailable
from amends.values.histogram import Histogram
from amends.values.records import AuditRow, MessageRow
from amends.values.tables import table_of

log = logging.getLogger("amends.journal")
MAX_BATCH = 512
MAX_ROWS = 1_024  # of one batch, about: what follows a commit is carried out in one go, and the loop stands still
SLICE = 16  # turns whose effects are carried out before the database may have the loop
ROOM = 4 * MAX_BATCH  # so many may wait before what can come later (timers) waits for room
RECENT_US = 50_000
LOCKED_RETRY_S = (0.02, 0.5)
LOCKED_ASKS = 5
ALONE_S = 0.5  # between tries of turns that wait for a lock of a row nobody can name: each costs a lock's time-out
AWAY = Backoff(100, 500)  # between tries while the database is away


class Holds(Protocol):
    """Answers whether a requirement on another actor holds of its committed state."""

    def __call__(self, requirement: Requirement) -> bool:
        """Whether it holds now."""
        ...


class Pending:
    """A turn on its way to the journal.

    `again` decides it anew, as of now; None when nothing is to be committed any more. `recent`: it was decided for this
    very moment. `alone`: it waits for a lock that no row of a state explains, and goes into no batch with others.
    """

    __slots__ = ("again", "alone", "decided_us", "done", "recent", "tries", "turn")

    def __init__(
        self, turn: Turn, done: Callable[[TurnFailed | None], None], *,
        again: "Callable[[], Pending | None] | None" = None, recent: bool = False, decided_us: int = 0,
    ) -> None:  # fmt: skip
        self.turn, self.done, self.tries = turn, done, 0
        self.again, self.recent, self.decided_us, self.alone = again, recent, decided_us, False


class JournalWriter:
    """The one task that commits."""

    def __init__(
        self, journal: Commits, head: Head, types: Sequence[type[Struct]], holds: Holds,
        now_us: Callable[[], int], max_waiting: int = 50_000,
    ) -> None:  # fmt: skip
        self._journal, self._types, self._holds = journal, types, holds
        self.head = head
        self._queue: deque[Pending] = deque()
        self._committed: deque[Callable[[None], None]] = deque()  # what follows is still to be carried out
        self._known: asyncio.Future[None] | None = None  # done once what is being committed is carried out as well
        self._aside: list[Pending] = []
        self.closed: frozenset[str] = frozenset()  # tables that a foreign session lets nobody write
        self._aside_task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self._max_waiting, self._now = max_waiting, now_us
        self.breaker = Breaker("postgres", AWAY, now_us)
        self.commits = self.turns = self.refused = 0
        self._in_doubt = False  # a commit is under way, or was when we were ended
        self.took = Histogram()

    @property
    def waiting(self) -> int:
        """Turns not yet committed."""
        return len(self._queue) + len(self._aside)

    @property
    def idle(self) -> bool:
        """Whether nothing waits, and nothing is being committed."""
        return self._idle.is_set()

    @property
    def full(self) -> bool:
        """Whether so much waits that no new request is taken."""
        return self.waiting >= self._max_waiting

    @property
    def at_rest(self) -> bool:
        """Whether nothing waits, and of all that was tried is known what became of it."""
        return not self._in_doubt and not self.waiting and not self._committed

    def submit(self, pending: Pending) -> None:
        """Queue a turn; `pending.done` is called when it has committed or failed."""
        self._queue.append(pending)
        self._idle.clear()
        self._wake.set()
        if len(self._queue) >= ROOM:
            self._roomy.clear()

    def known(self) -> asyncio.Future[None] | None:
        """Done once all that may be seen as committed by now is carried out; None where it is."""
        if not self._in_doubt and not self._committed:
            return None
        if self._known is None:  # one for all that ask meanwhile, however long it takes
            self._known = asyncio.get_running_loop().create_future()
            if not self._in_doubt:
                self._committed.append(self._known.set_result)
        return self._known

    async def room(self) -> None:
        """Wait until the journal keeps up: for work that loses nothing by coming later."""
        await self._roomy.wait()

    @property
    def trouble(self) -> str:
        """What keeps turns from being committed, "" for nothing."""
        if not self.breaker.closed:
            return "commits wait for Postgres"
        if self.closed:
            return f"a foreign session locks {', '.join(sorted(self.closed))}: {len(self._aside)} turns wait"
        return ""

    async def run(self) -> None:
        """Commit until cancelled; raises `Fenced` when another runtime has taken over."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue or self._committed:
                    if not self._queue:
                        await self._carry_out()
                        continue
                    self._in_doubt, self._known = True, None  # who asks from now on waits for this commit too
                    await self._commit(self._next_batch())
                    self._in_doubt = False
                    if self._known is not None:
                        self._committed.append(self._known.set_result)
                        self._known = None
                    if len(self._queue) < ROOM:
                        self._roomy.set()
                if not self._aside:
                    self._idle.set()
        finally:
            if self._aside_task is not None:
                self._aside_task.cancel()

    async def drained(self) -> None:
        """Wait until nothing waits."""
        await self._idle.wait()

    def _next_batch(self) -> list[Pending]:
        batch: list[Pending] = []
        rows = 0
        while self._queue and len(batch) < MAX_BATCH and rows < MAX_ROWS:
            if batch and (self._queue[0].alone or batch[0].alone):
                break
            batch.append(self._queue.popleft())
            rows += len(batch[-1].turn.rows) + len(batch[-1].turn.audits)
        return batch

    async def _commit(self, batch: list[Pending]) -> None:
        if any(pending.recent or pending.turn.requires for pending in batch):
            await self._carry_out()  # they ask what is committed
        now = self._now()
        if any(pending.recent and now - pending.decided_us > RECENT_US for pending in batch):
            batch = _decided_anew(batch, lambda each: each.recent and now - each.decided_us > RECENT_US)
        batch = self._still_valid(batch)
        if not batch:
            self.breaker.succeeded()  # nothing is left that waits for the database
            return
        try:
            commit = self._sealed(batch)
            if not await self._is_committed(commit):
                self._look_again(batch)
                return
        except Refused as error:
            self.refused += 1
            if len(batch) == 1:
                batch[0].done(error)
            else:
                await self._halves(batch)
        except Locked:
            await self._divide_locked(batch)
        else:
            self.head = commit.after
            self.commits += 1
            self.turns += len(batch)
            self._committed += [pending.done for pending in batch]

    async def _carry_out(self) -> None:
        """What follows the turns that have committed; others may have the loop between."""
        while self._committed:
            for _ in range(min(SLICE, len(self._committed))):
                self._committed.popleft()(None)
            await asyncio.sleep(0)

    def _look_again(self, batch: list[Pending]) -> None:
        """The database was away: each turn of the batch is decided anew, and goes before what has come since."""
        anew = _decided_anew(batch, lambda each: True)
        self._queue.extendleft(reversed(anew))
        if not anew:
            self.breaker.succeeded()  # it answers, and nothing is left that would show more

    def _sealed(self, batch: list[Pending]) -> Commit:
        """The batch as a commit; what cannot be written as JSON is its own turn's trouble, like a refused row."""
        try:
            return seal([pending.turn for pending in batch], self.head, self._types)
        except (msgspec.MsgspecError, RecursionError, TypeError, ValueError) as error:
            raise Refused("unsealable", f"{type(error).__name__}: {error}") from error

    async def _halves(self, batch: list[Pending]) -> None:
        half = len(batch) // 2
        await self._commit(batch[:half])
        await self._commit(batch[half:])

    async def _is_committed(self, commit: Commit) -> bool:
        """Commit; False when the database was away meanwhile and is back without it: the turns are owed, not lost."""
        began = time.perf_counter()
        try:
            await self._send(commit)
        except Unavailable:
            self.breaker.failed()
        except TurnFailed:
            self.breaker.succeeded()  # it has answered
            raise
        else:
            self.took.observe(time.perf_counter() - began)
            self.breaker.succeeded()
            return True
        while True:
            await asyncio.sleep(self.breaker.wait_s)
            try:
                if not await self._journal.settled(commit):
                    return False  # the breaker closes when something commits
            except Unavailable:
                self.breaker.failed()
            else:
                self.breaker.succeeded()
                return True

    async def _send(self, commit: Commit) -> None:
        """Commit, and carry out meanwhile what follows the batch before."""
        if not self._committed:
            await self._journal.commit(commit)
            return
        sending = asyncio.create_task(self._journal.commit(commit), name="journal.commit")
        try:
            await asyncio.sleep(0)
            await self._carry_out()
            await sending
        finally:
            sending.cancel()

    def _still_valid(self, batch: list[Pending]) -> list[Pending]:
        """Without the turns whose requirements do not hold; those that depend on one before them wait one batch."""
        if not any(pending.turn.requires for pending in batch):
            return batch
        touched: set[tuple[str, str]] = set()
        valid = []
        for pending in batch:
            if any((kind, identifier) in touched for kind, identifier, _, _ in pending.turn.requires):
                self._queue.appendleft(pending)
                self._wake.set()
            elif all(self._holds(requirement) for requirement in pending.turn.requires):
                valid.append(pending)
                touched.add((pending.turn.kind, pending.turn.id))
            else:
                pending.done(Refused(REQUIREMENT, "what the turn requires of another entity no longer holds"))
        return valid

    async def _divide_locked(self, batch: list[Pending]) -> None:
        held, closed = await self._held(batch)
        free, aside = self._parted(batch, held, closed)
        if aside:
            self._set_aside(aside)
            if free:
                await self._commit(free)
        elif len(batch) == 1:
            batch[0].alone = True
            self._set_aside(batch)
        else:
            await self._halves(batch)

    async def _held(self, batch: list[Pending]) -> tuple[set[tuple[str, str]], set[str]]:
        """The states whose rows a foreign session holds, and the tables and kinds of actor that it closes."""
        writes = [
            StateWrite(p.turn.kind, p.turn.id, "", p.turn.version, None, "")
            for p in batch
            if p.turn.kind and p.turn.version > 1
        ]
        required = {(kind, identifier) for p in batch for kind, identifier, _, _ in p.turn.requires}
        asked = [StateWrite(kind, identifier, "", 2, None, "") for kind, identifier in sorted(required)]
        for again in range(LOCKED_ASKS, -1, -1):
            try:
                closed = await self._journal.closed()
                self._tell_closed(frozenset(closed.values()))
                shut = [write for write in writes if write.kind not in closed] + asked  # to require one is no write
                return await self._journal.locked(shut) if shut else set(), set(closed)
            except Locked:
                if not again:
                    break
                await asyncio.sleep(LOCKED_RETRY_S[0])  # closed between the two questions: asked again
            except Unavailable:
                await asyncio.sleep(AWAY.cap_ms / 1000)
        return {
            (write.kind, write.id) for write in writes + asked
        }, set()  # nobody can say which: all wait, and are asked after

    def _tell_closed(self, tables: frozenset[str]) -> None:
        if tables and not self.closed:
            log.warning("a foreign session lets nobody write %s; turns that do wait", ", ".join(sorted(tables)))
        elif self.closed and not tables:
            log.warning("%s can be written again", ", ".join(sorted(self.closed)))
        self.closed = tables

    def _set_aside(self, turns: list[Pending]) -> None:
        for pending in turns:
            pending.tries += 1
        self._aside.extend(turns)
        if self._aside_task is None or self._aside_task.done():
            self._aside_task = asyncio.create_task(self._readmit(), name="journal.readmit")

    async def _readmit(self) -> None:
        """Let turns back in when what they write is free; asking takes no lock and does not wait."""
        alone_at = 0.0
        loop = asyncio.get_running_loop()
        while self._aside:
            tries = min(pending.tries for pending in self._aside)
            await asyncio.sleep(min(LOCKED_RETRY_S[0] * 2 ** min(tries, 10), LOCKED_RETRY_S[1]))
            waiting = len(self._aside)
            held, closed = await self._held(self._aside[:waiting])
            free, still = self._parted(self._aside[:waiting], held, closed)
            singles = [pending for pending in free if pending.alone]
            if singles and loop.time() >= alone_at:
                alone_at = loop.time() + ALONE_S
                still += singles[1:]
                free = [pending for pending in free if not pending.alone or pending is singles[0]]
            else:
                still += singles
                free = [pending for pending in free if not pending.alone]
            self._aside = still + self._aside[waiting:]  # others may have joined meanwhile
            for pending in still:
                pending.tries += 1
            for pending in free:
                self.submit(pending)

    def _parted(
        self, batch: list[Pending], held: set[tuple[str, str]], closed: set[str]
    ) -> tuple[list[Pending], list[Pending]]:
        """Those that can be written, and those whose rows are held or whose tables are closed."""
        parts: tuple[list[Pending], list[Pending]] = ([], [])
        for pending in batch:
            turn = pending.turn
            shut = not held.isdisjoint(_rows_of(turn)) or (closed and not closed.isdisjoint(self._writes(turn)))
            parts[bool(shut)].append(pending)
        return parts

    def _writes(self, turn: Turn) -> set[str]:
        """The tables and kinds of actor that a turn writes."""
        found = {table_of(type(row)).name for row in turn.rows} | {spawn.kind for spawn in turn.spawned}
        if turn.audits:
            found.add(table_of(AuditRow).name)
        if turn.consumed or turn.set_aside:
            found.add(table_of(MessageRow).name)
        if turn.kind:
            found.add(turn.kind)
        return found


def _rows_of(turn: Turn) -> set[tuple[str, str]]:
    """The states that a turn writes and those it asks about."""
    return {(turn.kind, turn.id)} | {(kind, identifier) for kind, identifier, _, _ in turn.requires}


def _decided_anew(batch: list[Pending], which: Callable[[Pending], bool]) -> list[Pending]:
    """The batch with those turns as they would be decided now; what has nothing to commit any more is gone."""
    found = [pending.again() if pending.again is not None and which(pending) else pending for pending in batch]
    return [pending for pending in found if pending is not None]
