"""The end of a process: everything that was opened is closed in reverse, under one deadline, and what refuses is named.

A part that does not close costs half of what is left, so that those after it are closed as well; then the process ends
hard. Nothing is lost by that: what is acknowledged has committed, and what is owed are rows (P2).
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

from supervisors.logs import last_line

log = logging.getLogger("amends.boot")
CLOSE_S = 5.0  # what closing may take after the drain; a successor waits that long for the embedded servers' locks
LEAST_S, SAY_S = 0.05, 0.5
HARD = 1  # exit status of a process that had to end itself


Part = tuple[str, Callable[[], Awaitable[object]]]


class Parts:
    """What is open, by name, in the order of opening."""

    def __init__(self) -> None:
        self._open: list[Part] = []
        self._closing: Part | None = None

    @property
    def names(self) -> list[str]:
        """What is still open."""
        return [name for name, _ in (*self._open, *((self._closing,) if self._closing else ()))]

    def opened(self, name: str, close: Callable[[], Awaitable[object]]) -> None:
        """Something was opened, and this closes it."""
        self._open.append((name, close))

    async def close(self, budget_s: float = CLOSE_S) -> list[str]:
        """Close all within `budget_s` seconds; returns the names of those that did not."""
        deadline, stuck = time.monotonic() + budget_s, []
        while self._open:
            name, close = self._closing = self._open.pop()
            left_s = deadline - time.monotonic()
            share_s = max(LEAST_S, left_s / 2 if self._open else left_s)
            task = asyncio.ensure_future(_awaited(close))
            await asyncio.wait({task}, timeout=share_s)
            if not task.done():
                stuck.append(name)
                log.error("%s did not close within %.1f s; going on without", name, share_s)
                task.cancel()
            elif not task.cancelled() and (error := task.exception()) is not None:
                log.error("%s could not be closed: %r", name, error)
        self._closing = None
        return stuck


async def _awaited(close: Callable[[], Awaitable[object]]) -> None:
    await close()


def end_hard(what: Sequence[str], status: int = HARD) -> None:
    """End this process now, saying what did not close. What was started dies with it (the death signal)."""
    names = ", ".join(what) or "the event loop"
    line = last_line(f"did not close in time: {names}; ended hard, nothing that was committed is lost") + "\n"
    # In a thread of its own: nobody may read what we write, and the end must not wait for that either.
    say = threading.Thread(target=lambda: os.write(sys.stderr.fileno(), line.encode()), daemon=True)
    say.start()
    say.join(SAY_S)
    os._exit(status)


def watch(budget_s: float, still_open: Callable[[], Sequence[str]]) -> threading.Timer:
    """End the process hard when it is still there after `budget_s`, whatever its event loop does then.

    The timer is returned for those who go on to something else.
    """
    timer = threading.Timer(budget_s, lambda: end_hard(still_open()))
    timer.daemon = True
    timer.start()
    return timer
