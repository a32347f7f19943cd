"""Points of a run: every durable read, write and outside call, counted and named; and what happens at one of them."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from adapters.simulated.loop import VirtualLoop

MOMENT_S: Final = 0.001
MODES: Final = ("before", "lost", "after")  # it did not happen; it did, nobody heard; it did, and was heard


class Point(Struct, frozen=True):
    """The `number`-th call of a run, from 1, and what it was."""

    number: int
    what: str


class Points:
    """Implements `adapters.simulated.faults.Faults`: counts, takes a moment, and at one point something happens.

    `strike` is it: the process dies unless something else is said.
    """

    def __init__(
        self, at: int = 0, mode: str = "before", strike: Callable[[VirtualLoop], None] = VirtualLoop.crash
    ) -> None:
        self.seen: list[Point] = []
        self.struck: Point | None = None
        self._at, self._mode, self.strike = at, mode, strike
        self._under_way: dict[asyncio.Task[Any] | None, Point] = {}  # a task calls one thing at a time
        self.loop: VirtualLoop

    async def before(self, what: str) -> None:
        """It is about to happen: the call is on its way."""
        point = Point(len(self.seen) + 1, what)
        self.seen.append(point)
        self._under_way[asyncio.current_task()] = point
        await asyncio.sleep(MOMENT_S)
        if self._mode == "before":
            await self._here(point)

    async def after(self, what: str) -> None:
        """It has happened."""
        point = self._under_way.pop(asyncio.current_task())
        if self._mode == "lost":
            await self._here(point)
        elif self._mode == "after" and point.number == self._at:
            self._meet(point)

    async def _here(self, point: Point) -> None:
        if point.number == self._at:
            self._meet(point)
            await asyncio.sleep(0)  # who is dead or paused does not come back from here

    def _meet(self, point: Point) -> None:
        self.struck = point
        self.strike(self.loop)
