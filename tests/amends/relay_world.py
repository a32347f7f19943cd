"""Outbox table, journal writer and broker in memory, and a relay over them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from amends.delivery.relay import Relay
from amends.delivery.requests import RedispatchOutbox, SkipOutbox
from amends.delivery.streams import Stream
from amends.ports.bus import NOT_TOGETHER, Outgoing, Published
from amends.ports.journal import Head, StoredEvent
from amends.runtime.writer import Pending
from amends.values.errors import Unavailable
from amends.values.limits import Limits
from amends.values.records import OutboxMarkRow, OutboxRow
from tests.patience import PATIENCE_S

STREAM = "EVENTS"
ONE_BY_ONE = Published("down", NOT_TOGETHER)
LIMITS = Limits({"outbox_backoff_ms": (1, 4), "outbox_poll_ms": 5, "outbox_lag_alarm_ms": 60_000}, seed=7)


class World:
    """Outbox table, journal writer and broker in memory, and a relay over them."""

    def __init__(self) -> None:
        self.table: dict[str, dict[str, Any]] = {}  # in the order of the commits
        self.writer = SimpleNamespace(head=Head(1, 0, 0, ""), submit=self._commit_marks)
        self.told: list[Any] = []
        self.sent: list[str] = []  # what was tried
        self.acknowledged: list[str] = []  # what was taken, noted when it was
        self.answer: Callable[[str], Published] = lambda outbox_id: Published("ok")
        self.batches: list[list[str]] = []
        self.answer_together: Callable[[list[str]], Published] = lambda names: ONE_BY_ONE
        self.fresh = True
        self.fetches = 0
        self.meanwhile: list[str] = []  # one is committed before each read looks, and one after it has looked
        self.database_away = False
        self.stream = Stream(state="flowing")
        store = SimpleNamespace(get=lambda kind, identifier: self.stream)
        engine: Any = SimpleNamespace(
            context=SimpleNamespace(limits=LIMITS), writer=self.writer, store=store,
            tell=lambda kind, identifier, env: self.told.append(env.message),
        )  # fmt: skip
        journal: Any = self
        self.relay = Relay(engine, self, STREAM, self._now, journal=journal, may_act=lambda: self.fresh)

    def _now(self) -> int:
        return time.monotonic_ns() // 1000

    def commit(self, *names: str) -> None:
        """A turn's events; `n1.3` is the third of the entity n1."""
        seq = self.writer.head.seq + 1
        rows = [OutboxRow(name, name.partition(".")[0], STREAM, name, "{}", "t", "s", self._now()) for name in names]
        for row in rows:
            self.table[row.outbox_id] = {"row": row, "state": "pending", "attempts": 0, "jseq": seq}
        self.writer.head = Head(1, seq, 0, "")
        self.follow(rows, None)

    def settle(self, outbox_id: str, skip: bool) -> None:
        """An operator's word on a parked row."""
        self.table[outbox_id]["state"] = "skipped" if skip else "pending"
        self.writer.head = Head(1, self.writer.head.seq + 1, 0, "")
        self.follow([], (SkipOutbox if skip else RedispatchOutbox)(outbox_id=outbox_id, reason="because"))

    def follow(self, rows: list[Any], message: Any) -> None:
        decision: Any = SimpleNamespace(rows=rows, env=SimpleNamespace(message=message))
        self.relay.follow(decision)

    def _commit_marks(self, pending: Pending) -> None:
        self.writer.head = Head(1, self.writer.head.seq + 1, 0, "")
        self.mark(pending.turn.rows)
        asyncio.get_running_loop().call_soon(pending.done, None)

    def mark(self, rows: list[Any]) -> None:
        for mark in rows:
            assert isinstance(mark, OutboxMarkRow)
            self.table[mark.outbox_id] |= {"state": mark.state, "attempts": mark.attempts}

    async def _look(self, found: Callable[[], Any]) -> Any:
        """A read of the journal's; the answer is as old as a slow one's would be."""
        self.fetches += 1
        if self.database_away:
            raise Unavailable("away")
        if self.meanwhile:
            self.commit(self.meanwhile.pop(0))
        answer = found()
        if self.meanwhile:
            self.commit(self.meanwhile.pop(0))
        await asyncio.sleep(0)
        return answer

    def _in(self, state: str) -> list[dict[str, Any]]:
        return [each for each in self.table.values() if each["state"] == state]

    async def waiting_events(self, stream: str, up_to: int, limit: int, without: list[str]) -> list[StoredEvent]:
        def found() -> list[StoredEvent]:
            shut = {*(each["row"].entity for each in self._in("parked")), *without}
            fits = [e for e in self._in("pending") if e["jseq"] <= up_to and e["row"].entity not in shut]
            return [_found(each) for each in fits[:limit]]

        return list(await self._look(found))

    async def events(self, stream: str, ids: list[str]) -> list[StoredEvent]:
        return list(await self._look(lambda: [_found(self.table[outbox_id]) for outbox_id in ids]))

    async def parked_events(self, stream: str) -> list[tuple[str, str]]:
        rows = await self._look(lambda: [each["row"] for each in self._in("parked")])
        return [(row.outbox_id, row.entity) for row in rows]

    async def count_events(self, stream: str, entity: str = "") -> int:
        return int(await self._look(lambda: sum(entity in ("", each["row"].entity) for each in self._in("pending"))))

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        """The broker."""
        self.sent.append(message_id)
        await asyncio.sleep(0)
        answer = self.answer(message_id)
        if answer.kind == "ok":
            self.acknowledged.append(message_id)
        return answer

    async def publish_together(self, messages: Sequence[Outgoing]) -> Published:
        """The broker, of messages that come as one."""
        names = [each.message_id for each in messages]
        self.batches.append(names)
        await asyncio.sleep(0)
        answer = self.answer_together(names)
        if answer.kind == "ok":
            self.sent += names
            self.acknowledged += names
        return answer

    def states(self) -> set[str]:
        return {each["state"] for each in self.table.values()}


def _found(each: dict[str, Any]) -> StoredEvent:
    return StoredEvent(each["row"], each["state"], each["attempts"])


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    task = asyncio.create_task(world.relay.run())
    try:
        yield world
    finally:
        assert not task.done(), task
        task.cancel()
        await asyncio.wait({task})


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.001)


def in_order(sent: list[str]) -> bool:
    """Whether each entity's rows went out in their order, each once."""
    entities: dict[str, list[int]] = {}
    for name in sent:
        entity, _, number = name.partition(".")
        entities.setdefault(entity, []).append(int(number))
    return all(numbers == list(range(len(numbers))) for numbers in entities.values())
