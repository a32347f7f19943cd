"""What was answered to idempotency keys before: one query for all keys that came while the last one was under way.

So the way to the database bounds the wait of a command and not how many there are a second.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from amends.ports.journal import KeptReply

Place = tuple[str, str]  # (caller, key)
ReadKept = Callable[[list[str], list[str]], Awaitable[Sequence[KeptReply]]]
AT_ONCE: Final = 512  # keys in one query


class KeptReplies:
    """Looks kept replies up, in batches. `read` takes callers and keys and gives rows with both."""

    def __init__(self, read: ReadKept) -> None:
        self._read = read
        self._asked: dict[Place, asyncio.Future[KeptReply | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def find(self, caller: str, key: str) -> KeptReply | None:
        """The kept reply, if there is one; raises what `read` raises."""
        found = self._asked.get((caller, key))
        if found is None:
            found = self._asked[caller, key] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all(), name="kept-replies")
        return await asyncio.shield(found)

    async def aclose(self) -> None:
        """Stop looking; who still waits is cancelled."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        for future in self._asked.values():
            future.cancel()

    async def _read_all(self) -> None:
        try:
            while self._asked:
                batch = {place: self._asked.pop(place) for place in list(self._asked)[:AT_ONCE]}
                try:
                    await self._read_batch(batch)
                finally:
                    for future in batch.values():
                        future.cancel()  # no effect on those that have been answered
        finally:
            self._reading = None

    async def _read_batch(self, batch: dict[Place, "asyncio.Future[KeptReply | None]"]) -> None:
        try:
            rows = await self._read([caller for caller, _ in batch], [key for _, key in batch])
        except Exception as error:  # noqa: BLE001 - it is raised again where it was asked
            for future in batch.values():
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # one that nobody waits for any more is no trouble
            return
        found = {(row.caller, row.key): row for row in rows}
        for place, future in batch.items():
            if not future.done():
                future.set_result(found.get(place))
