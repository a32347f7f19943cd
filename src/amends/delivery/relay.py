"""The outbox relay: follows committed events to the stream, in each entity's order, at least once.

Rows go out together, as they were committed, with one acknowledgement for all of a batch; where that fails, one by one:
entities side by side, their own rows in order. Nothing is published without an acknowledgement (C7). While the stream
refuses, only its oldest row is tried (R01), from the third failure on beside another entity's: if that one
goes out, the first is set apart. At most `READ_AHEAD` rows are in memory; the rest waits in Postgres.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any

import msgspec

from amends.delivery.apart import Apart
from amends.delivery.marks import Marks
from amends.delivery.requests import RedispatchOutbox, SkipOutbox
from amends.delivery.streams import (
    Lag,
    PublishFailed,
    PublishPoisoned,
    PublishRecovered,
    PublishSetApart,
    Stream,
)
from amends.ports.bus import NOT_TOGETHER, BatchPublisher, Outgoing, Published
from amends.ports.journal import Journal, StoredEvent
from amends.runtime.breaker import Breaker
from amends.runtime.engine import Engine
from amends.turn.decision import Decision
from amends.turn.messages import Envelope
from amends.values.errors import Unavailable
from amends.values.records import OutboxMarkRow, OutboxRow

log = logging.getLogger("amends.relay")
CONCURRENCY = 64
TOGETHER = 500  # rows of one batch at most
ONE_BY_ONE_US = 60_000_000  # until a stream that takes no batches is asked again whether it does
READ_AHEAD = 10_000
MOST_PARKED = 100  # each has a case in the stream's state; what is refused beyond that is set apart, like any other
DOUBT_AFTER = 3  # failures in a row of the oldest row, before another entity's is tried beside it


class Relay:
    """The relay of one stream. `journal` reads what is committed, `may_act` says whether the lease is fresh."""

    def __init__(
        self, engine: Engine, publisher: BatchPublisher, stream: str, now_us: Callable[[], int], *,
        journal: Journal, may_act: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._engine, self._publisher, self.stream, self._now = engine, publisher, stream, now_us
        self._journal, self._may_act = journal, may_act
        self._rows: OrderedDict[str, OutboxRow] = OrderedDict()  # what is in memory, oldest commit first
        self._entities: dict[str, deque[OutboxRow]] = {}  # the same rows by entity
        self._attempts: dict[str, int] = {}
        self._passed: dict[str, int] = {}  # of a row that was refused, how many had gone out by then
        self._ready: deque[str] = deque()
        self._queued: set[str] = set()  # what stands in `_ready`: an entity is there once, or in flight, or neither
        self._in_flight: dict[asyncio.Task[None], None] = {}  # as they were begun
        self._singly = 0  # how many rows go out one by one before others go together again
        self._singly_until_us = 0
        self._parked: dict[str, str] = {}  # entity → its poisoned row; what follows it waits in Postgres
        self._behind, self._left = True, 0  # whether rows wait in Postgres beyond those in memory, and how many
        self._met: list[OutboxRow] | None = None  # committed while a page is being read; None while none is
        self._started = False
        self._stuck: OutboxRow | None = None
        self._apart = Apart(engine.context.limits.backoff("outbox_backoff_ms"))
        self._try_at_us = self._look_at_us = 0
        limits = engine.context.limits
        self.breaker = Breaker(f"nats:{stream}", limits.backoff("outbox_backoff_ms"), now_us, seed=limits.seed,
                               said=f"the stream {stream}")  # fmt: skip
        self._apart_try: asyncio.Task[None] | None = None
        self._refusals: dict[str, PublishFailed] = {}  # publishes that failed while others were still under way
        self._told: set[str] = set()  # left memory; the stream's actor has yet to commit what became of them
        self._wake = asyncio.Event()
        self._lagging = False
        self._marks = Marks(lambda: engine.writer, now_us, self._wake.set)
        self.published = 0

    # --- intake --------------------------------------------------------------------------------------

    def follow(self, decision: Decision) -> None:
        """A committed turn's events, and what became of parked ones."""
        message = decision.env.message
        for row in decision.rows:
            if type(row) is OutboxRow and row.stream == self.stream:
                if self._met is not None:
                    self._met.append(row)
                else:
                    self._take(row)
            elif type(row) is OutboxMarkRow and row.state == "published":
                self._told.discard(row.outbox_id)
        if isinstance(message, RedispatchOutbox):
            if isinstance(message, SkipOutbox):
                self._apart.remove(message.outbox_id)
            else:
                self._apart.now(message.outbox_id)
                self._try_at_us = 0  # and what stands before it
            self._parked = {entity: row_id for entity, row_id in self._parked.items() if row_id != message.outbox_id}
            self._behind = True
            self._wake.set()

    @property
    def pending(self) -> int:
        """Events that can go out and are not yet acknowledged, in memory and beyond."""
        return len(self._rows) + self._left

    def _take(self, row: OutboxRow) -> None:
        if self._behind or len(self._rows) >= READ_AHEAD:
            self._behind = True
            self._left += 1
        elif row.entity not in self._parked and row.entity not in self._apart:
            self._accept(row)

    def _accept(self, row: OutboxRow) -> None:
        if row.outbox_id in self._rows:  # read, and met as well: its commit was in the head and not yet carried out
            return
        self._rows[row.outbox_id] = row
        queue = self._entities.get(row.entity)
        if queue is None:
            self._entities[row.entity] = deque((row,))
            self._make_ready(row.entity)
            self._wake.set()
        else:
            queue.append(row)

    async def _read_on(self) -> None:
        """Read the next rows, oldest commit first. What commits meanwhile is met beside them: none is lost or twice.

        All up to the head as it is now can be seen by the read; all after it comes through `follow`.
        """
        self._met, page, head = [], None, self._engine.writer.head.seq
        try:
            if not self._started:
                await self._begin()
            page = await self._journal.waiting_events(self.stream, head, READ_AHEAD, [*self._apart.entities])
        except Unavailable as error:
            log.warning("the outbox cannot be read: %s", error)
        finally:
            met, self._met = self._met, None
            if page is not None:
                self._behind = len(page) == READ_AHEAD
                self._left = max(0, self._left - len(page)) if self._behind else 0
                for found in page:
                    self._accept_read(found)
            for row in met:
                self._take(row)
        if not self._started and page is not None:
            self._started = True
            self._resume_stuck()

    async def _begin(self) -> None:
        """At the start: which entities wait behind a parked row, and how much waits."""
        self._parked = {entity: outbox_id for outbox_id, entity in await self._journal.parked_events(self.stream)}
        self._left = await self._journal.count_events(self.stream)
        stream = self._engine.store.get("stream", self.stream)
        apart = list(stream.apart) if isinstance(stream, Stream) else []
        for found in await self._journal.events(self.stream, apart) if apart else ():
            self._apart.add(found.row, found.attempts, self._now())

    def _accept_read(self, found: StoredEvent) -> None:
        row = found.row
        if row.outbox_id in self._told or row.entity in self._parked or row.entity in self._apart:
            return
        if found.attempts:
            self._attempts[row.outbox_id] = found.attempts
        self._accept(row)

    def _resume_stuck(self) -> None:
        """The row that a run is open for is the one that is tried alone, with the waits it had come to.

        It had come to the head of its entity. A row before it now is one whose mark was lost: it follows.
        """
        stream = self._engine.store.get("stream", self.stream)
        if isinstance(stream, Stream) and stream.state == "blocked" and stream.outbox_id in self._rows:
            self._stuck = self._rows[stream.outbox_id]
            queue = self._entities[self._stuck.entity]
            queue.remove(self._stuck)
            queue.appendleft(self._stuck)
            self.breaker.resume(max(1, self._attempts.get(stream.outbox_id, 0)))
            self._try_later()

    # --- the service ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish until cancelled."""
        try:
            while True:
                self._wake.clear()
                self._check_lag()
                if self._behind and not self._rows and self._marks.none:
                    await self._read_on()
                if self._refusals and not self._in_flight:
                    self._choose_stuck()
                if self._stuck is not None:
                    await self._try_stuck(self._stuck)
                elif not self._refusals:
                    self._start()
                apart = self._apart.due(self._now())
                if apart is not None and self._apart_try is None and self._may_act():
                    self._apart_try = asyncio.create_task(self._try_apart(apart), name="relay.apart")
                    self._apart_try.add_done_callback(self._apart_landed)
                self._marks.flush()
                await self._pause()
        finally:
            for task in (*self._in_flight, self._apart_try):
                if task is not None:
                    task.cancel()

    async def _pause(self) -> None:
        """Until something has happened, or it is time to look again."""
        wait_us: int | None = None
        if self._rows or self._behind or self._lagging or len(self._apart):
            wait_us = self._engine.context.limits.us("outbox_poll_ms")
            due_us = self._try_at_us - self._now()
            if self._stuck is not None and 0 < due_us < wait_us:
                wait_us = due_us
            if (next_us := self._apart.next_us) is not None and self._apart_try is None and self._may_act():
                wait_us = min(wait_us, max(0, next_us - self._now()))
        try:
            async with asyncio.timeout(None if wait_us is None else wait_us / 1e6):
                await self._wake.wait()
        except TimeoutError:
            return

    def _start(self) -> None:
        """Begin what may go out: all that waits as one, or entities side by side."""
        if self._goes_together():
            if not self._in_flight and self._rows and self._may_act():
                rows = list(islice(self._rows.values(), TOGETHER))
                self._begin_task(self._publish_together(rows) if len(rows) > 1 else self._publish_next(rows[0].entity))
            return
        while self._ready and len(self._in_flight) < CONCURRENCY and not self._refusals and self._may_act():
            entity = self._ready.popleft()
            self._queued.discard(entity)
            if entity in self._entities:
                self._begin_task(self._publish_next(entity))

    def _goes_together(self) -> bool:
        return self._singly <= 0 and self._now() >= self._singly_until_us

    def _begin_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="relay.publish")
        self._in_flight[task] = None
        task.add_done_callback(self._landed)

    def _choose_stuck(self) -> None:
        """All that was under way has landed: the oldest row is the one that a run belongs to."""
        refusals, self._refusals = self._refusals, {}
        refusals = {name: refused for name, refused in refusals.items() if not self._is_its_own(refused)}
        if not refusals:
            return
        self._stuck = next(iter(self._rows.values()))
        self.breaker.failed()
        self._try_later()
        for outbox_id, refused in refusals.items():
            if outbox_id == self._stuck.outbox_id:
                self._tell(self._stuck, refused)
            else:
                self._marks.put(OutboxMarkRow(outbox_id, "pending", refused.attempts, None))

    def _is_its_own(self, refused: PublishFailed) -> bool:
        """Whether a row that was refused is set apart, as others have gone out since it was refused the last time."""
        row = self._rows[refused.outbox_id]
        passed = self._passed.pop(row.outbox_id, self.published) < self.published
        if refused.attempts >= DOUBT_AFTER and passed and not self._apart.full:
            self._set_apart(row, refused)
            return True
        self._passed[row.outbox_id] = self.published
        return False

    def _try_later(self) -> None:
        self._try_at_us = self._now() + int(self.breaker.wait_s * 1e6)

    def _make_ready(self, entity: str) -> None:
        if entity not in self._queued:
            self._queued.add(entity)
            self._ready.append(entity)

    def _landed(self, task: "asyncio.Task[None]") -> None:
        self._in_flight.pop(task, None)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a publish could not be taken in", exc_info=error)

    async def _publish_together(self, rows: list[OutboxRow]) -> None:
        """Publish rows as one; what is said beside "ok" is said of none in particular: each is published by itself."""
        result = await self._send_together(rows)
        if result.kind == "ok":
            for row in rows:
                attempts = self._attempts.pop(row.outbox_id, 0) + 1
                self._marks.put(OutboxMarkRow(row.outbox_id, "published", attempts, self._now()))
                self._done_with(row)
            return
        self._singly = len(rows)
        if result.code == NOT_TOGETHER:
            self._singly_until_us = self._now() + ONE_BY_ONE_US
        elif result.code == "ack_timeout":
            for row in rows:  # they may have gone out
                self._attempts[row.outbox_id] = self._attempts.get(row.outbox_id, 0) + 1

    async def _publish_next(self, entity: str) -> None:
        """Publish one row of the entity; the next one follows when this one is acknowledged."""
        row = self._entities[entity][0]
        started = self._now()
        try:
            result = await self._send(row)
        except asyncio.CancelledError:
            self._make_ready(entity)
            raise
        attempts = self._attempts.pop(row.outbox_id, 0) + 1
        if result.kind in ("ok", "duplicate"):
            self._marks.put(OutboxMarkRow(row.outbox_id, "published", attempts, self._now()))
            self._done_with(row)
        elif result.kind == "poison":
            self._park(row, attempts, result)
        else:
            self._attempts[row.outbox_id] = attempts
            self._make_ready(entity)
            self._refusals[row.outbox_id] = self._failed(row, attempts, started, result)

    async def _try_stuck(self, row: OutboxRow) -> None:
        """Only the oldest row is tried while the stream refuses; one back-off, for ever."""
        if self._now() < self._try_at_us or not self._may_act():
            return
        started = self._now()
        result, attempts = await self._tried(row)
        if result.kind == "down":
            self.breaker.failed()
            self._try_later()
            self._tell(row, self._failed(row, attempts, started, result))
            if self.breaker.failures < DOUBT_AFTER or self._apart.full or not await self._another_goes_out(row.entity):
                return
            started = self._now()
            result, attempts = await self._tried(row)  # the stream may have come back between the two
        self.breaker.succeeded()
        self._stuck = None
        del self._attempts[row.outbox_id]
        if result.kind == "poison":
            self._park(row, attempts, result)
        elif result.kind == "down":
            self._set_apart(row, self._failed(row, attempts, started, result))
        else:
            self._done_with(row)
            self._told.add(row.outbox_id)
            self._tell(row, PublishRecovered(row.outbox_id, attempts, started, self._now(), self.pending))

    async def _tried(self, row: OutboxRow) -> tuple[Published, int]:
        result = await self._send(row)
        attempts = self._attempts[row.outbox_id] = self._attempts.get(row.outbox_id, 0) + 1
        return result, attempts

    async def _another_goes_out(self, entity: str) -> bool:
        """Try the oldest row of another entity; whether the stream takes it."""
        row = next((each for each in self._rows.values() if each.entity != entity), None)
        if row is None and self._behind:
            await self._read_past(entity)
            row = next((each for each in self._rows.values() if each.entity != entity), None)
        if row is None:
            return False
        result, attempts = await self._tried(row)
        if result.kind == "down":
            self._marks.put(OutboxMarkRow(row.outbox_id, "pending", attempts, None))
            return False
        del self._attempts[row.outbox_id]
        if result.kind == "poison":
            self._park(row, attempts, result)
            return False
        self._marks.put(OutboxMarkRow(row.outbox_id, "published", attempts, self._now()))
        self._done_with(row)
        return True

    async def _read_past(self, entity: str) -> None:
        """Memory holds one entity's rows alone: have the oldest of the others beside them."""
        past = [entity, *self._apart.entities]
        try:
            page = await self._journal.waiting_events(self.stream, self._engine.writer.head.seq, 1, past)
        except Unavailable as error:
            log.warning("the outbox cannot be read: %s", error)
            return
        for found in page:
            if found.row.outbox_id not in self._rows:
                self._accept_read(found)

    def _set_apart(self, row: OutboxRow, failed: PublishFailed) -> None:
        """The stream takes others: this row waits by itself, and its entity's later ones behind it."""
        self._apart.add(row, failed.attempts, self._now())
        self._forget_entity(row.entity)
        self._tell(row, PublishSetApart(failed))

    def _apart_landed(self, task: "asyncio.Task[None]") -> None:
        self._apart_try = None
        self._landed(task)

    async def _try_apart(self, row: OutboxRow) -> None:
        """Try it beside the others; meanwhile an operator may give it up."""
        started, attempts = self._now(), self._apart.attempts(row.entity) + 1
        result = await self._send(row)
        if not self._apart.holds(row):
            return
        if result.kind == "down":
            self._apart.failed(row.entity, self._now())
            failed = self._failed(row, attempts, started, result)
            self._tell(row, msgspec.structs.replace(failed, apart=True))
            return
        if result.kind == "poison":
            self._parked[row.entity] = row.outbox_id
            self._apart.remove(row.outbox_id)
            self._tell(row, PublishPoisoned(row.outbox_id, attempts, result.code, result.message))
            return
        try:
            behind = await self._journal.count_events(self.stream, row.entity) - 1
        except Unavailable:
            if self._apart.holds(row):
                self._apart.failed(row.entity, self._now())  # it goes out once more, as a duplicate
            return
        if not self._apart.holds(row):
            return
        self._apart.remove(row.outbox_id)
        self._behind = True
        self._left += behind
        self.published += 1
        self._told.add(row.outbox_id)
        self._tell(row, PublishRecovered(row.outbox_id, attempts, started, self._now(), behind, apart=True))

    async def _send(self, row: OutboxRow) -> Published:
        trace = (row.trace_id, row.span_id)
        try:
            result = await self._publisher.publish(row.subject, row.payload.encode(), row.outbox_id, trace)
        except Exception as error:  # a publisher's fault waits like an outage instead of being repeated at once
            log.exception("a publish raised")
            return Published("down", "internal", f"{type(error).__name__}: {error}")
        if result.kind == "poison" and len(self._parked) >= MOST_PARKED and row.entity not in self._parked:
            return Published("down", result.code, f"{result.message}; {len(self._parked)} events are parked already")
        return result

    async def _send_together(self, rows: list[OutboxRow]) -> Published:
        messages = [
            Outgoing(row.subject, row.payload.encode(), row.outbox_id, (row.trace_id, row.span_id)) for row in rows
        ]
        try:
            return await self._publisher.publish_together(messages)
        except Exception as error:
            log.exception("publishing together raised")
            return Published("down", "internal", f"{type(error).__name__}: {error}")

    def _done_with(self, row: OutboxRow) -> None:
        self.published += 1
        self._singly -= 1
        del self._rows[row.outbox_id]
        self._passed.pop(row.outbox_id, None)
        queue = self._entities[row.entity]
        queue.popleft()
        if queue:
            self._make_ready(row.entity)
        else:
            del self._entities[row.entity]
        self._wake.set()

    def _park(self, row: OutboxRow, attempts: int, result: Published) -> None:
        """Poison: behind it its entity's later rows wait for a person; others go on."""
        self._parked[row.entity] = row.outbox_id
        self._forget_entity(row.entity)
        self._tell(row, PublishPoisoned(row.outbox_id, attempts, result.code, result.message))

    def _forget_entity(self, entity: str) -> None:
        """Its rows leave the memory; they wait in Postgres."""
        for each in self._entities.pop(entity):
            del self._rows[each.outbox_id]
            self._attempts.pop(each.outbox_id, None)
            self._passed.pop(each.outbox_id, None)
        self._wake.set()

    def _failed(self, row: OutboxRow, attempts: int, started: int, result: Published) -> PublishFailed:
        return PublishFailed(row.outbox_id, attempts, started, self._now(), result.code, result.message)

    def _tell(self, row: OutboxRow, message: object) -> None:
        env = Envelope(message, trace_id=row.trace_id, span_id=row.span_id, priority=True)
        self._engine.tell("stream", self.stream, env)

    # --- lag -----------------------------------------------------------------------------------------

    def _check_lag(self) -> None:
        """Tell of an episode's beginning and end; looked at no more often than the poll says."""
        now, limits = self._now(), self._engine.context.limits
        if now < self._look_at_us:
            return
        self._look_at_us = now + limits.us("outbox_poll_ms")
        age = now - next(iter(self._rows.values())).created_us if self._rows else 0
        if (age > limits.us("outbox_lag_alarm_ms")) != self._lagging:
            self._lagging = not self._lagging
            env = Envelope(Lag(age, over=not self._lagging), priority=True)
            self._engine.tell("stream", self.stream, env)
