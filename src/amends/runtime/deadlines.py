"""When running tasks must have ended: one heap for all of them instead of a timer of the loop for each."""

import asyncio
import heapq

SPARE = 64  # entries of tasks that have ended, beside those that run, before they are thrown out


class Deadlines:
    """Tasks with a time at which they are cancelled. Seconds of the loop's clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, asyncio.Task[None]]] = []
        self._number = 0
        self._running: set[asyncio.Task[None]] = set()
        self._over: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def set(self, task: "asyncio.Task[None]", at_s: float) -> bool:
        """Have the task cancelled at that time; whether no other is due before it."""
        self._number += 1
        self._running.add(task)
        heapq.heappush(self._heap, (at_s, self._number, task))
        return self._heap[0][2] is task

    def drop(self, task: "asyncio.Task[None]") -> None:
        """It has ended."""
        self._running.discard(task)
        self._over.discard(task)
        if len(self._heap) > 2 * len(self._running) + SPARE:
            self._heap = [entry for entry in self._heap if entry[2] in self._running]
            heapq.heapify(self._heap)

    def is_over(self, task: "asyncio.Task[None]") -> bool:
        """Whether it was cancelled because its time was over."""
        return task in self._over

    def cancel_due(self, now_s: float) -> float | None:
        """Cancel those whose time is over; seconds until the next one, None without one."""
        while self._heap and (self._heap[0][0] <= now_s or self._heap[0][2] not in self._running):
            task = heapq.heappop(self._heap)[2]
            if task in self._running:
                self._over.add(task)
                task.cancel()
        return self._heap[0][0] - now_s if self._heap else None
