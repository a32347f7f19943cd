"""An event loop with virtual time: no thread, no socket. A crash stops it dead, and the world outside is kept.

    loop = VirtualLoop()
    loop.run_until_complete(story())      # time jumps to the next timer whenever nothing is ready
    loop.crash()                          # from inside: no callback runs any more; `Crashed` leaves the run
    loop.bury()                           # afterwards: what hung in it is closed, in the order it was begun

Deterministic: callbacks run in the order they were asked for, timers in the order of their time and then of asking.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, NoReturn, cast

STEPS = 2_000_000  # callbacks of one run, before it is taken for a livelock


class Crashed(BaseException):
    """The process of this loop is dead. No `except Exception` holds it up."""


class Livelock(RuntimeError):
    """The step budget is spent."""


class _Ready(deque[Any]):
    """The loop's queue of callbacks; each is taken only while the process lives."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self._check = check

    def popleft(self) -> Any:
        """The next callback; raises `Crashed`, `Livelock`."""
        self._check()
        return super().popleft()


class _Selector:
    """Stands where a real loop asks the kernel: time passes at once."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        """Nothing ever comes from outside; without a timer nothing ever will."""
        self._loop.check_alive()
        if timeout is None:
            raise RuntimeError("everything waits, and no timer will ever wake it: " + self._loop.waiting())
        self._loop.advance(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """See above. `start_s`: what its clock shows at the beginning."""

    def __init__(self, start_s: float = 0.0, steps: int = STEPS) -> None:
        super().__init__()
        self._now = start_s
        self._clock_resolution = 1e-9
        self._left, self._dead, self._callbacks = steps, False, -1
        self._ready = _Ready(self._check)
        self._selector = _Selector(self)
        self._begun: list[asyncio.Task[Any]] = []
        self.set_task_factory(cast("Any", self._note))
        self.unheard: list[dict[str, Any]] = []  # errors of tasks that nobody asked for
        self.set_exception_handler(lambda loop, context: self.unheard.append(context))

    # --- time ----------------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def now_us(self) -> int:
        """The same in microseconds."""
        return round(self._now * 1e6)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += max(0.0, seconds)

    # --- death ---------------------------------------------------------------------------------------

    def crash(self, after: int = 0) -> None:
        """The process dies now, or after so many further callbacks."""
        self._callbacks = after
        if after == 0:
            self._dead = True

    async def die(self) -> NoReturn:
        """Crash, and be the point that is never left."""
        self.crash()
        await self.create_future()
        raise Crashed

    def bury(self) -> None:
        """Close what hung in the dead loop, so that nothing of it is found later by the collector."""
        self._dead = True
        for task in self._begun:
            cast("Any", task)._log_destroy_pending = False  # noqa: SLF001 - it is meant to be lost
            if not task.done():
                with contextlib.suppress(RuntimeError, Exception):
                    cast("Any", task.get_coro()).close()
        self._begun.clear()
        self._ready.clear()
        cast("Any", self)._scheduled.clear()  # noqa: SLF001 - the base class names no other way

    def waiting(self) -> str:
        """The names of the tasks that are not done."""
        return ", ".join(sorted(task.get_name() for task in self._begun if not task.done())) or "none"

    def check_alive(self) -> None:
        """Raise `Crashed` in a dead process."""
        if self._dead:
            raise Crashed

    def _check(self) -> None:
        if self._callbacks > 0:
            self._callbacks -= 1
            self._dead |= self._callbacks == 0
        self.check_alive()
        self._left -= 1
        if self._left < 0:
            raise Livelock(f"no rest after so many callbacks; these go on: {self.waiting()}")

    def _note(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], *, context: Context | None = None,
        **more: Any,
    ) -> asyncio.Task[Any]:  # fmt: skip
        task = asyncio.Task(coro, loop=loop, context=context, **more)
        self._begun.append(task)
        if len(self._begun) > 1000:
            self._begun = [each for each in self._begun if not each.done()]
        return task

    # --- nothing real --------------------------------------------------------------------------------

    def _process_events(self, event_list: list[Any]) -> None:
        """None ever come."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> NoReturn:  # type: ignore[override]
        """There is one thread."""
        raise RuntimeError("a thread in a simulated world")

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """What hung in a generator of a dead process is lost with it."""

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """There is one thread."""
        raise RuntimeError("a thread in a simulated world")

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """There are no sockets."""
        raise RuntimeError("real I/O in a simulated world")

    def add_writer(self, fd: Any, callback: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """There are no sockets."""
        raise RuntimeError("real I/O in a simulated world")

    def _add_reader(self, fd: Any, callback: Any, *args: Any) -> NoReturn:
        raise RuntimeError("real I/O in a simulated world")

    _add_writer = _add_reader
