"""The journal writer: turns of many actors share one commit; a refused or locked one stands alone.

Commits are serial on one head. Turns that arrive while a commit is under way form the next batch, so the batch
grows with the load and one turn alone waits for nothing. A lone turn's trouble is its own: a refused batch is
divided until the culprit stands alone, a locked one is set aside and asked after without waiting (R03).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from amends.ports import Commit, Head, Journal, StateWrite, Turn
from amends.runtime.breaker import Breaker
from amends.runtime.seal import seal
from amends.values.backoff import Backoff
from amends.values.errors import Locked, Refused, TurnFailed, Unavailable

Requirement = tuple[str, str, tuple[str, ...], int | None]
MAX_BATCH = 512
LOCKED_RETRY_S = (0.02, 0.5)
AWAY = Backoff(100, 500)  # between tries while the database is away


class Holds(Protocol):
    """Answers whether a requirement on another actor holds of its committed state."""

    def __call__(self, requirement: Requirement) -> bool:
        """Whether it holds now."""
        ...


class Pending:
    """A turn on its way to the journal."""

    __slots__ = ("done", "requires", "tries", "turn")

    def __init__(
        self, turn: Turn, done: Callable[[TurnFailed | None], None], requires: list[Requirement] | None = None
    ) -> None:
        self.turn, self.done, self.requires, self.tries = turn, done, requires or [], 0


class JournalWriter:
    """The one task that commits."""

    def __init__(
        self, journal: Journal, head: Head, tables: dict[type[Struct], str], holds: Holds,
        now_us: Callable[[], int], max_waiting: int = 50_000,
    ) -> None:  # fmt: skip
        self._journal, self._tables, self._holds = journal, tables, holds
        self.head = head
        self._queue: deque[Pending] = deque()
        self._aside: list[Pending] = []
        self._aside_task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._max_waiting = max_waiting
        self.breaker = Breaker("postgres", AWAY, now_us)
        self.commits = self.turns = self.refused = 0

    @property
    def waiting(self) -> int:
        """Turns not yet committed."""
        return len(self._queue) + len(self._aside)

    @property
    def full(self) -> bool:
        """Whether so much waits that no new request is taken."""
        return self.waiting >= self._max_waiting

    def submit(self, pending: Pending) -> None:
        """Queue a turn; `pending.done` is called when it has committed or failed."""
        self._queue.append(pending)
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """Commit until cancelled; raises `Fenced` when another runtime has taken over."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    size = min(len(self._queue), MAX_BATCH)
                    await self._commit([self._queue.popleft() for _ in range(size)])
                if not self._aside:
                    self._idle.set()
        finally:
            if self._aside_task is not None:
                self._aside_task.cancel()

    async def drained(self) -> None:
        """Wait until nothing waits."""
        await self._idle.wait()

    async def _commit(self, batch: list[Pending]) -> None:
        batch = self._still_valid(batch)
        if not batch:
            return
        try:
            commit = self._sealed(batch)
            await self._until_available(commit)
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
            for pending in batch:
                pending.done(None)

    def _sealed(self, batch: list[Pending]) -> Commit:
        """The batch as a commit; what cannot be written as JSON is its own turn's trouble, like a refused row."""
        try:
            return seal([pending.turn for pending in batch], self.head, self._tables)
        except (msgspec.MsgspecError, RecursionError, TypeError, ValueError) as error:
            raise Refused("unsealable", f"{type(error).__name__}: {error}") from error

    async def _halves(self, batch: list[Pending]) -> None:
        half = len(batch) // 2
        await self._commit(batch[:half])
        await self._commit(batch[half:])

    async def _until_available(self, commit: Commit) -> None:
        """Commit, however long the database is away: the turn is owed, not lost."""
        while True:
            try:
                await self._journal.commit(commit)
            except Unavailable:
                self.breaker.failed()
                await asyncio.sleep(self.breaker.wait_s)
            except TurnFailed:
                self.breaker.succeeded()  # it has answered
                raise
            else:
                self.breaker.succeeded()
                return

    def _still_valid(self, batch: list[Pending]) -> list[Pending]:
        """Without the turns whose requirements do not hold; those that depend on one before them wait one batch."""
        if not any(pending.requires for pending in batch):
            return batch
        touched: set[tuple[str, str]] = set()
        valid = []
        for pending in batch:
            if any((kind, identifier) in touched for kind, identifier, _, _ in pending.requires):
                self._queue.appendleft(pending)
                self._wake.set()
            elif all(self._holds(requirement) for requirement in pending.requires):
                valid.append(pending)
                touched.add((pending.turn.kind, pending.turn.id))
            else:
                pending.done(Refused("requirement", "what the turn requires of another entity no longer holds"))
        return valid

    async def _divide_locked(self, batch: list[Pending]) -> None:
        held = await self._held(batch)
        free, aside = _parted(batch, held)
        if aside:
            self._set_aside(aside)
            if free:
                await self._commit(free)
        elif len(batch) == 1:
            self._set_aside(batch)
        else:
            await self._halves(batch)

    async def _held(self, batch: list[Pending]) -> set[tuple[str, str]]:
        writes = [
            StateWrite(p.turn.kind, p.turn.id, "", p.turn.version, None, "")
            for p in batch
            if p.turn.kind and p.turn.version > 1
        ]
        while True:
            try:
                return await self._journal.locked(writes)
            except Locked:
                return {(write.kind, write.id) for write in writes}  # the whole table is held
            except Unavailable:
                await asyncio.sleep(AWAY.cap_ms / 1000)

    def _set_aside(self, turns: list[Pending]) -> None:
        for pending in turns:
            pending.tries += 1
        self._aside.extend(turns)
        if self._aside_task is None or self._aside_task.done():
            self._aside_task = asyncio.create_task(self._readmit(), name="journal.readmit")

    async def _readmit(self) -> None:
        """Let turns back in when their rows are free; asking takes no lock and does not wait."""
        while self._aside:
            tries = min(pending.tries for pending in self._aside)
            await asyncio.sleep(min(LOCKED_RETRY_S[0] * 2 ** min(tries, 10), LOCKED_RETRY_S[1]))
            waiting = len(self._aside)
            held = await self._held(self._aside[:waiting])
            free, still = _parted(self._aside[:waiting], held)
            self._aside = still + self._aside[waiting:]  # others may have joined meanwhile
            for pending in still:
                pending.tries += 1
            for pending in free:
                self.submit(pending)


def _parted(batch: list[Pending], held: set[tuple[str, str]]) -> tuple[list[Pending], list[Pending]]:
    """Those whose rows are free, and those whose rows are held."""
    parts: tuple[list[Pending], list[Pending]] = ([], [])
    for pending in batch:
        parts[(pending.turn.kind, pending.turn.id) in held].append(pending)
    return parts
