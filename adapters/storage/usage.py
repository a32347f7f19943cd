"""What a namespace holds: by the file system's quota where a program tells it, else measured, and kept for a while.

Only a quota is enforced. What finds it out is shared by all who ask meanwhile, and a failure is kept as long as a
measurement, counted from its end: however long one takes to fail, it is not begun anew for every question.
"""

import asyncio
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from adapters.storage.directories import Directories, measure
from adapters.storage.programs import run
from amends.ports.storage import Trouble, Usage

FRESH_US: Final = 10_000_000
WAIT_S: Final = 0.5  # below any time limit of a runtime
MEASURED_AT_ONCE: Final = 2
ASKED_AT_ONCE: Final = 8
QUOTA: Final = re.compile(r"(\d{1,18})\s+(\d{1,18})\s*")


class Ended(Struct, frozen=True):
    """How one of them ended; until then that is the answer."""

    found: Usage | Trouble
    until_us: int
    ended_us: int


class Shared(ABC):
    """One at a time for each namespace. `fresh_us`: how long usage is kept; `wait_s`: how long one is waited for."""

    def __init__(
        self, directories: Directories, now_us: Callable[[], int], *, fresh_us: int, wait_s: float | None, at_once: int
    ) -> None:
        self._directories, self._now, self._fresh_us, self._wait_s = directories, now_us, fresh_us, wait_s
        self._last: dict[str, Ended] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(at_once)

    async def usage(self, namespace_id: str) -> Usage:
        """What was found out lately or soon is, else the last one. Raises `Trouble` if that is one or there is none."""
        path = self._directories.existing(namespace_id)
        last = self._last.get(namespace_id)
        if last is not None and last.ended_us <= self._now() < last.until_us:
            return _said(last.found)
        task = self._running.get(namespace_id)
        if task is None:
            task = self._running[namespace_id] = asyncio.create_task(self._run(namespace_id, path))
        await asyncio.wait({task}, timeout=self._wait_s)
        if task.done():
            task.result()
        elif last is None:
            raise Trouble("measuring", f"{namespace_id} is being measured for the first time")
        return _said(self._last[namespace_id].found)

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._running:
            await asyncio.wait(list(self._running.values()))

    @abstractmethod
    async def _find(self, namespace_id: str, path: Path) -> Usage:
        """Find it out; raises `Trouble`."""

    async def _run(self, namespace_id: str, path: Path) -> None:
        try:
            async with self._places:
                found = await self._find(namespace_id, path)
            self._keep(namespace_id, found, self._fresh_us)
        except Trouble as trouble:
            self._keep(namespace_id, trouble, FRESH_US)
        finally:
            del self._running[namespace_id]

    def _keep(self, namespace_id: str, found: Usage | Trouble, for_us: int) -> None:
        now_us = self._now()
        self._last[namespace_id] = Ended(found, now_us + for_us, now_us)


class Measured(Shared):
    """Usage by counting blocks, in a thread; who asks meanwhile hears the last one, with its time."""

    def __init__(self, directories: Directories, now_us: Callable[[], int]) -> None:
        super().__init__(directories, now_us, fresh_us=FRESH_US, wait_s=WAIT_S, at_once=MEASURED_AT_ONCE)
        self._stopped = threading.Event()

    async def _find(self, namespace_id: str, path: Path) -> Usage:
        as_of_us = self._now()
        return Usage(await asyncio.to_thread(measure, path, self._stopped.is_set), as_of_us, enforced=False)

    async def close(self) -> None:
        """Let the measurements under way end at their next directory."""
        self._stopped.set()
        await super().close()


class Quota(Shared):
    """Usage by a program: `PROGRAM [ARGUMENT…] NAMESPACE PATH` prints bytes used and the limit in bytes, 0 for none.

    What the file system says now: of an answer nothing is kept.
    """

    def __init__(self, directories: Directories, now_us: Callable[[], int], command: Sequence[str]) -> None:
        super().__init__(directories, now_us, fresh_us=0, wait_s=None, at_once=ASKED_AT_ONCE)
        self._command = tuple(command)

    async def _find(self, namespace_id: str, path: Path) -> Usage:
        as_of_us = self._now()
        status, said = await run([*self._command, namespace_id, str(path)], changes=False)
        found = QUOTA.fullmatch(said)
        if status or found is None:
            raise Trouble("quota_failed", f"{self._command[0]} ended with {status} and said {said[:200]!r}")
        return Usage(int(found[1]), as_of_us, enforced=int(found[2]) > 0)


def _said(found: Usage | Trouble) -> Usage:
    if isinstance(found, Trouble):
        raise found.with_traceback(None)
    return found
