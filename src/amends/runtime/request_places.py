"""Places for requests: each caller has its own, so nobody's requests take another's.

`Places` counts what is under way; `FairPlaces` lends a few shared things (connections) to callers in turn.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, Literal

from amends.runtime.identity import Identity
from amends.values.errors import Rejected

Class = Literal["command", "query", "operator", "signed"]
# At once, per caller: (one of single accounts, one trusted with all, who may speak for many customers).
UNDER_WAY: Final[Mapping[Class, tuple[int, int]]] = {
    "command": (1024, 4096), "query": (256, 2048), "operator": (256, 256), "signed": (256, 256),
}  # fmt: skip
RETRY_MS: Final = 200


def class_of(role: str, identity: Identity) -> Class:
    """Whose places a request on an endpoint of that role takes."""
    if identity.operates:
        return "operator"
    if role == "signed":
        return "signed"
    return "query" if role == "reader" else "command"


class Places:
    """Requests under way, by class and caller. Callers are configured, so their number is a bound of its own."""

    def __init__(self, bounds: Mapping[Class, tuple[int, int]] = UNDER_WAY) -> None:
        self._bounds = bounds
        self._taken: Counter[tuple[Class, str]] = Counter()

    def enter(self, of: Class, identity: Identity) -> None:
        """Take a place; raises `Rejected` (throttled) when this caller has none left."""
        bound = self._bounds[of][identity.trusted]
        if self._taken[of, identity.name] >= bound:
            raise Rejected(
                "throttled", f"{bound} requests of {identity.name} are under way; try again", limit=f"{of}s_under_way",
                retry_after_ms=RETRY_MS,
            )  # fmt: skip
        self._taken[of, identity.name] += 1

    def leave(self, of: Class, identity: Identity) -> None:
        """Give it back."""
        self._taken[of, identity.name] -= 1
        if not self._taken[of, identity.name]:
            del self._taken[of, identity.name]

    def __len__(self) -> int:
        return self._taken.total()


class FairPlaces:
    """`count` places for whoever asks; those who wait are served in turn by name, and one name's in their order."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[tuple[int, asyncio.Future[None]]]] = OrderedDict()

    @asynccontextmanager
    async def place(self, whose: str, most: int, within_s: float) -> AsyncIterator[None]:
        """One place, `most` of them for that name at once; raises TimeoutError when none came up `within_s`."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(whose, deque()).append((most, turn))
        self._serve()
        try:
            async with asyncio.timeout(within_s):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._give_back(whose)  # it came just when nobody waited any more
            turn.cancel()
            raise
        try:
            yield
        finally:
            self._give_back(whose)

    def _give_back(self, whose: str) -> None:
        self._free += 1
        self._held[whose] -= 1
        if not self._held[whose]:
            del self._held[whose]
        self._serve()

    def _serve(self) -> None:
        for whose in list(self._waiting) if self._free else ():
            queue = self._waiting[whose]
            while queue and queue[0][1].done():  # given up
                queue.popleft()
            if queue and self._free and self._held[whose] < queue[0][0]:
                self._free -= 1
                self._held[whose] += 1
                queue.popleft()[1].set_result(None)
                self._waiting.move_to_end(whose)
            if not queue:
                del self._waiting[whose]
