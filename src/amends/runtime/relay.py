"""The outbox relay: follows committed events to the stream, in each entity's order, at least once.

Entities go out side by side, an entity's own rows one after another. While the stream refuses, only its oldest row
is tried (R01), and each real publish counts. Nothing is marked published without an acknowledgement (C7).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol

from msgspec import Struct

from amends.ports import Turn
from amends.runtime.breaker import Breaker
from amends.runtime.decision import Decision
from amends.runtime.engine import Engine
from amends.runtime.messages import Envelope
from amends.runtime.streams import Lag, PublishFailed, PublishPoisoned, PublishRecovered
from amends.runtime.writer import Pending
from amends.values.records import OutboxMarkRow, OutboxRow

log = logging.getLogger("amends.relay")
CONCURRENCY = 64
MARKS_AT_ONCE, MARKS_EVERY_US = 512, 20_000


class Published(Struct, frozen=True):
    """What the broker said. `duplicate` counts as published; `poison` blames the payload, `down` does not."""

    kind: Literal["ok", "duplicate", "down", "poison"]
    code: str = ""
    message: str = ""


class Publisher(Protocol):
    """Publishes with acknowledgement to the stream that takes the subject."""

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        """Publish; never raises for what the broker or the way to it does."""
        ...


class Relay:
    """The relay of one stream."""

    def __init__(self, engine: Engine, publisher: Publisher, stream: str, now_us: Callable[[], int]) -> None:
        self._engine, self._publisher, self.stream, self._now = engine, publisher, stream, now_us
        self._entities: dict[str, deque[OutboxRow]] = {}
        self._attempts: dict[str, int] = {}
        self._ready: deque[str] = deque()
        self._queued: set[str] = set()  # what stands in `_ready`: an entity is there once, or in flight, or neither
        self._in_flight: set[asyncio.Task[None]] = set()
        self._stuck: OutboxRow | None = None
        self.breaker = Breaker(f"nats:{stream}", engine.context.limits.backoff("outbox_backoff_ms"), now_us)
        self._refusals: dict[str, PublishFailed] = {}  # publishes that failed while others were still under way
        self._parked: dict[str, deque[OutboxRow]] = {}  # by entity, what waits behind a poisoned row
        self._marks: list[OutboxMarkRow] = []
        self._wake = asyncio.Event()
        self._lagging = False
        self._flushed_us, self._flush_later = now_us(), False
        self.published = 0

    def follow(self, decision: Decision) -> None:
        """A committed turn's events."""
        for row in decision.rows:
            if type(row) is OutboxRow and row.stream == self.stream:
                self.accept(row)

    def accept(self, row: OutboxRow, attempts: int = 0) -> None:
        """Take over a pending row; rows of one entity must come in their order."""
        if attempts:
            self._attempts[row.outbox_id] = attempts
        queue = self._parked.get(row.entity, self._entities.get(row.entity))
        if queue is None:
            self._entities[row.entity] = deque((row,))
            self._make_ready(row.entity)
            self._wake.set()
        else:
            queue.append(row)

    def resume_stuck(self, outbox_id: str) -> None:
        """After a start: the row a run is open for is the one that is tried alone.

        It had come to the head of its entity's queue. A row before it now is one whose mark was lost, or one of the
        same turn; it follows.
        """
        for queue in self._entities.values():
            for row in queue:
                if row.outbox_id == outbox_id:
                    queue.remove(row)
                    queue.appendleft(row)
                    self._stuck = row
                    return

    def settle(self, row: OutboxRow, *, skip: bool) -> None:
        """An operator has settled a parked row."""
        self.release(row.entity, None if skip else row)

    @property
    def pending(self) -> int:
        """Rows not yet acknowledged."""
        return sum(len(queue) for queue in self._entities.values())

    async def run(self) -> None:
        """Publish until cancelled."""
        limits = self._engine.context.limits
        try:
            while True:
                self._wake.clear()
                self._check_lag(limits.us("outbox_lag_alarm_ms"))
                if self._refusals and not self._in_flight:
                    self._choose_stuck()
                if self._stuck is not None:
                    await self._try_stuck()
                elif not self._refusals:
                    self._start()
                self._flush()
                if not self._wake.is_set():
                    busy = self._entities or self._lagging
                    try:
                        async with asyncio.timeout(limits("outbox_poll_ms") / 1000 if busy else None):
                            await self._wake.wait()
                    except TimeoutError:
                        continue
        finally:
            for task in self._in_flight:
                task.cancel()

    def _start(self) -> None:
        while self._ready and len(self._in_flight) < CONCURRENCY and not self._refusals:
            entity = self._ready.popleft()
            self._queued.discard(entity)
            if entity not in self._entities:
                continue
            task = asyncio.create_task(self._publish_next(entity), name="relay.publish")
            self._in_flight.add(task)
            task.add_done_callback(self._landed)

    def _choose_stuck(self) -> None:
        """All that was under way has landed: the oldest row is the one that a run belongs to."""
        refusals, self._refusals = self._refusals, {}
        self._stuck = self._oldest()
        self.breaker.failed()
        if self._stuck.outbox_id in refusals:
            self._tell(self._stuck, refusals[self._stuck.outbox_id])

    def _make_ready(self, entity: str) -> None:
        if entity not in self._queued:
            self._queued.add(entity)
            self._ready.append(entity)

    def _landed(self, task: "asyncio.Task[None]") -> None:
        self._in_flight.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a publish raised", exc_info=error)

    async def _publish_next(self, entity: str) -> None:
        """Publish one row of the entity; the next one follows when this one is acknowledged."""
        row = self._entities[entity][0]
        started = self._now()
        try:
            result = await self._send(row)
        except BaseException:
            self._make_ready(entity)
            raise
        attempts = self._attempts.pop(row.outbox_id, 0) + 1
        if result.kind in ("ok", "duplicate"):
            self._marks.append(OutboxMarkRow(row.outbox_id, "published", attempts, self._now()))
            self._done_with(row)
        elif result.kind == "poison":
            self._park(row, attempts, result)
        else:
            self._attempts[row.outbox_id] = attempts
            self._make_ready(entity)
            self._refusals[row.outbox_id] = self._failed(row, attempts, started, result)

    async def _try_stuck(self) -> None:
        """Only the oldest row is tried while the stream refuses; one back-off, for ever."""
        row = self._stuck
        assert row is not None
        attempts = self._attempts.get(row.outbox_id, 0)
        await asyncio.sleep(self.breaker.wait_s)
        started = self._now()
        result = await self._send(row)
        attempts += 1
        self._attempts[row.outbox_id] = attempts
        if result.kind == "down":
            self.breaker.failed()
            self._tell(row, self._failed(row, attempts, started, result))
            return
        self.breaker.succeeded()
        self._stuck = None
        del self._attempts[row.outbox_id]
        if result.kind == "poison":
            self._park(row, attempts, result)
            return
        self._done_with(row)
        self._tell(row, PublishRecovered(row.outbox_id, attempts, started, self._now(), self.pending))

    async def _send(self, row: OutboxRow) -> Published:
        trace = (row.trace_id, row.span_id)
        return await self._publisher.publish(row.subject, row.payload.encode(), row.outbox_id, trace)

    def _oldest(self) -> OutboxRow:
        return min((queue[0] for queue in self._entities.values()), key=lambda row: (row.created_us, row.outbox_id))

    def _done_with(self, row: OutboxRow) -> None:
        self.published += 1
        queue = self._entities[row.entity]
        queue.popleft()
        if queue:
            self._make_ready(row.entity)
        else:
            del self._entities[row.entity]
        self._wake.set()

    def _park(self, row: OutboxRow, attempts: int, result: Published) -> None:
        """Poison: behind it its entity's later rows wait for a person; others go on."""
        self._tell(row, PublishPoisoned(row.outbox_id, attempts, result.code, result.message))
        queue = self._entities.pop(row.entity)
        queue.popleft()
        self._parked[row.entity] = queue

    def hold(self, entity: str) -> None:
        """After a start: this entity has a parked row; what follows it waits."""
        self._parked.setdefault(entity, deque())

    def release(self, entity: str, row: OutboxRow | None) -> None:
        """An operator settled a parked row: it (unless skipped) and what waits behind it go on."""
        waiting = self._parked.pop(entity, deque())
        for each in ([row] if row is not None else []) + list(waiting):
            self.accept(each)

    def _failed(self, row: OutboxRow, attempts: int, started: int, result: Published) -> PublishFailed:
        return PublishFailed(row.outbox_id, attempts, started, self._now(), result.code, result.message)

    def _tell(self, row: OutboxRow, message: object) -> None:
        env = Envelope(message, trace_id=row.trace_id, span_id=row.span_id, priority=True)
        self._engine.tell("stream", self.stream, env)

    def _flush(self) -> None:
        """Mark what was acknowledged; a lost mark only means one more publish with the same id.

        Marks wait a moment for one another: a commit of their own would stand in the way of an actor's turn.
        """
        if not self._marks:
            return
        now = self._now()
        if len(self._marks) < MARKS_AT_ONCE and now - self._flushed_us < MARKS_EVERY_US:
            if not self._flush_later:
                self._flush_later = True
                asyncio.get_running_loop().call_later(MARKS_EVERY_US / 1e6, self._flush_now)
            return
        self._flushed_us = now
        turn = Turn()
        turn.rows, self._marks = list(self._marks), []
        self._engine.writer.submit(Pending(turn, lambda error: None))

    def _flush_now(self) -> None:
        self._flush_later = False
        self._flushed_us = 0
        self._flush()

    def _check_lag(self, alarm_us: int) -> None:
        now = self._now()
        age = now - self._oldest().created_us if self._entities else 0
        if (age > alarm_us) != self._lagging:
            self._lagging = age > alarm_us
            env = Envelope(Lag(age, over=not self._lagging), priority=True)
            self._engine.tell("stream", self.stream, env)
