"""What a namespace holds: by the file system's quota where a program tells it, else measured, and kept for a while.

Only a quota is enforced. A measurement goes on in a thread; who asks meanwhile hears the last one, with its time.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from adapters.storage.directories import Directories, measure
from adapters.storage.programs import run
from amends.ports.storage import Trouble, Usage

FRESH_US: Final = 10_000_000
WAIT_S: Final = 0.5  # below any time limit of a runtime
QUOTA: Final = re.compile(r"(\d{1,18})\s+(\d{1,18})\s*")


class Measured:
    """Usage by counting blocks; two are measured at once."""

    def __init__(self, directories: Directories, now_us: Callable[[], int]) -> None:
        self._directories, self._now = directories, now_us
        self._last: dict[str, Usage] = {}
        self._running: dict[str, asyncio.Task[Usage]] = {}
        self._places = asyncio.Semaphore(2)
        self._stopped = threading.Event()

    async def usage(self, namespace_id: str) -> Usage:
        """A measurement that is fresh, or ends soon; else the last one. Raises `Trouble` if there is none yet."""
        path = self._directories.existing(namespace_id)
        last = self._last.get(namespace_id)
        if last is not None and 0 <= self._now() - last.as_of_us < FRESH_US:
            return last
        task = self._running.get(namespace_id)
        if task is None:
            task = self._running[namespace_id] = asyncio.create_task(self._measure(namespace_id, path))
        await asyncio.wait({task}, timeout=WAIT_S)
        if task.done():
            return task.result()
        if last is None:
            raise Trouble("measuring", f"{namespace_id} is being measured for the first time")
        return last

    async def _measure(self, namespace_id: str, path: Path) -> Usage:
        try:
            async with self._places:
                as_of_us = self._now()
                used = await asyncio.to_thread(measure, path, self._stopped.is_set)
            self._last[namespace_id] = Usage(used, as_of_us, enforced=False)
            return self._last[namespace_id]
        finally:
            del self._running[namespace_id]

    async def close(self) -> None:
        """Let the measurements under way end at their next directory."""
        self._stopped.set()
        if self._running:
            await asyncio.wait(list(self._running.values()))


class Quota:
    """Usage by a program: `PROGRAM [ARGUMENT…] NAMESPACE PATH` prints bytes used and the limit in bytes, 0 for none."""

    def __init__(self, directories: Directories, now_us: Callable[[], int], command: Sequence[str]) -> None:
        self._directories, self._now, self._command = directories, now_us, tuple(command)

    async def usage(self, namespace_id: str) -> Usage:
        """What the file system says now."""
        path = self._directories.existing(namespace_id)
        as_of_us = self._now()
        status, said = await run([*self._command, namespace_id, str(path)], changes=False)
        found = QUOTA.fullmatch(said)
        if status or found is None:
            raise Trouble("quota_failed", f"{self._command[0]} ended with {status} and said {said[:200]!r}")
        return Usage(int(found[1]), as_of_us, enforced=int(found[2]) > 0)

    async def close(self) -> None:
        """Nothing goes on."""
