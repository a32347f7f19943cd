"""One after another, by key: who holds a key lets the next one have it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Locks that exist only while somebody holds or waits for them."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Wait for the key's turn, in the order of asking, and have it."""
        lock, asking = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = lock, asking + 1
        try:
            async with lock:
                yield
        finally:
            lock, asking = self._locks[key]
            if asking == 1:
                del self._locks[key]
            else:
                self._locks[key] = lock, asking - 1

    def __len__(self) -> int:
        return len(self._locks)
