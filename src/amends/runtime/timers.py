"""Durable timers, in memory: one heap of due times over all actors, re-armed lazily.

A timer's truth is its actor's state; an entry that no longer matches is dropped when it comes up, or when most of the
heap is such: what is armed far ahead and put off again and again would fill the memory until then. One task for all;
however many are due at once, they are fired in slices and no faster than the journal takes them.
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable

from amends.runtime.slices import Slices

SPARE = 1_000  # entries that no longer match, beside as many as do, before the heap is made anew


class Timers:
    """Calls `fire(kind, id)` when an actor's earliest timer is due. Times in microseconds of the runtime's clock.

    `room` returns when the journal keeps up with what was fired.
    """

    def __init__(
        self,
        now_us: Callable[[], int],
        fire: Callable[[str, str], None],
        room: Callable[[], Awaitable[None]],
        monotonic_us: Callable[[], int],
    ) -> None:
        self._now, self._fire, self._room, self._monotonic_us = now_us, fire, room, monotonic_us
        self._heap: list[tuple[int, str, str]] = []
        self._armed: dict[tuple[str, str], int] = {}
        self._wake = asyncio.Event()

    def arm(self, kind: str, identifier: str, due_us: int | None) -> None:
        """The actor's earliest due time is now `due_us` (none: nothing is due)."""
        key = (kind, identifier)
        if due_us is None:
            self._armed.pop(key, None)
        elif self._armed.get(key) != due_us:
            self._armed[key] = due_us
            if len(self._heap) > 2 * len(self._armed) + SPARE:
                self._heap = [(due, *of) for of, due in self._armed.items()]
                heapq.heapify(self._heap)
            else:
                heapq.heappush(self._heap, (due_us, kind, identifier))
            if self._heap[0][0] == due_us:
                self._wake.set()

    def fire_now(self) -> int:
        """Fire what is due at this instant, without making room; returns how many actors were told."""
        now, told = self._now(), 0
        while self._heap and self._heap[0][0] <= now:
            due, kind, identifier = heapq.heappop(self._heap)
            if self._armed.get((kind, identifier)) == due:
                del self._armed[kind, identifier]
                self._fire(kind, identifier)
                told += 1
        return told

    def look(self) -> None:
        """The clock has stepped: what is due now is looked for again."""
        self._wake.set()

    def __len__(self) -> int:
        return len(self._armed)

    @property
    def entries(self) -> int:
        """What the heap holds, what no longer matches included."""
        return len(self._heap)

    async def run(self) -> None:
        """Fire until cancelled."""
        while True:
            self._wake.clear()
            now, slices = self._now(), Slices(self._monotonic_us)
            while self._heap and self._heap[0][0] <= now:
                await slices.shared()
                await self._room()
                if not self._heap:
                    break
                due, kind, identifier = heapq.heappop(self._heap)
                if self._armed.get((kind, identifier)) == due:
                    del self._armed[kind, identifier]
                    self._fire(kind, identifier)
            wait_s = min((self._heap[0][0] - now) / 1e6, 60.0) if self._heap else None
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                continue
