"""Locks by key: what is done under one key goes one after the other, under different keys side by side."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class KeyedLock:
    """Locks that exist only while somebody holds or waits for them. Who asks first has it first."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Wait for the key's lock, and have it."""
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
