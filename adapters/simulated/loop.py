"""An event loop with virtual time: no thread, no socket. A crash stops it dead, and the world outside is kept.

    loop = VirtualLoop()
    loop.run_until_complete(story())      # time jumps to the next timer whenever nothing is ready
    loop.crash()                          # from inside: no callback runs any more; `Crashed` leaves the run
    loop.bury()                           # afterwards: what hung in it is closed, in the order it was begun

Several processes are several loops on one clock (`processes.py`): each is stepped, and may be paused as by SIGSTOP.

Deterministic: callbacks run in the order they were asked for, timers in the order of their time and then of asking.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import Any, NoReturn, cast

NEVER = float("inf")
RESOLUTION_S = 1e-9  # timers so near to one another are due at once
MOST_CANCELLED = 100
STEPS = 2_000_000  # callbacks of one run, before it is taken for a livelock


class Crashed(BaseException):
    """The process of this loop is dead. No `except Exception` holds it up."""


class Paused(BaseException):
    """The process of this loop is stopped, and goes on later."""


class Livelock(RuntimeError):
    """The step budget is spent."""


class Clock:
    """Virtual seconds, of one loop or of several."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now


class VirtualLoop(asyncio.BaseEventLoop):
    """See above. `start_s`: what its clock shows at the beginning; `clock`: one that others have as well."""

    _ready: deque[asyncio.Handle]  # of the base class, as is `_stopping`
    _stopping: bool

    def __init__(self, start_s: float = 0.0, steps: int = STEPS, clock: Clock | None = None) -> None:
        super().__init__()
        self._clock = clock or Clock(start_s)
        self._left, self._dead, self.paused = steps, False, False
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._asked = self._cancelled = 0  # timers: how many there ever were, how many of those here count no more
        self._begun: list[asyncio.Task[Any]] = []
        self.set_task_factory(cast("Any", self._note))
        self.unheard: list[dict[str, Any]] = []  # errors of tasks that nobody asked for
        self.set_exception_handler(lambda loop, context: self.unheard.append(context))

    # --- time ----------------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds."""
        return self._clock.now

    def now_us(self) -> int:
        """The same in microseconds."""
        return round(self._clock.now * 1e6)

    def advance(self, seconds: float) -> None:
        """Let time pass while nothing runs, as when a callback takes long."""
        self._clock.now += max(0.0, seconds)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See `asyncio.AbstractEventLoop.call_at`."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        handle._scheduled = True  # type: ignore[attr-defined] # noqa: SLF001 - so that its cancelling is told
        self._asked += 1
        heappush(self._timers, (when, self._asked, handle))
        return handle

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """See `asyncio.AbstractEventLoop.call_soon`."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Those that count no more are dropped when they are the most."""
        self._cancelled += 1
        if self._cancelled > MOST_CANCELLED and self._cancelled * 2 > len(self._timers):
            self._timers = [each for each in self._timers if not each[2].cancelled()]
            heapify(self._timers)
            self._cancelled = 0

    def _run_once(self) -> None:
        """What is ready now runs, once; when nothing is, time goes on to the next timer. Nothing comes from outside."""
        self.check_alive()
        clock, ready = self._clock, self._ready
        if not ready and not self._stopping:
            while self._timers and self._timers[0][2].cancelled():
                heappop(self._timers)
                self._cancelled -= 1
            if not self._timers:
                raise RuntimeError("everything waits, and no timer will ever wake it: " + self.waiting())
            clock.now = max(clock.now, self._timers[0][0])
        timers, end = self._timers, clock.now + RESOLUTION_S
        while timers and timers[0][0] < end:
            handle = heappop(timers)[2]
            handle._scheduled = False  # type: ignore[attr-defined] # noqa: SLF001 - it is no timer any more
            if handle.cancelled():
                self._cancelled -= 1
            else:
                ready.append(handle)
        for _ in range(len(ready)):
            self._check()
            callback = ready.popleft()
            if not callback.cancelled():
                callback._run()  # noqa: SLF001 - as the base class runs it

    # --- death and pauses ----------------------------------------------------------------------------

    @property
    def dead(self) -> bool:
        """Whether nothing runs in it any more."""
        return self._dead

    def crash(self) -> None:
        """The process dies: the callback that runs is its last."""
        self._dead = True

    def pause(self) -> None:
        """The process is stopped: no callback begins, and timers are late, until `go_on`."""
        self.paused = True

    def go_on(self) -> None:
        """It goes on where it was."""
        self.paused = False

    def step(self) -> None:
        """Run what is ready or due, once; raises `Crashed`, `Livelock`."""
        self.call_soon(self.stop)
        with contextlib.suppress(Paused):
            self.run_forever()

    def next_s(self) -> float:
        """When it has something to run: now, at its next timer, or never."""
        if self._ready:
            return self.time()
        return max(self.time(), self._timers[0][0]) if self._timers else NEVER

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
        self._timers.clear()

    def waiting(self) -> str:
        """The names of the tasks that are not done."""
        return ", ".join(sorted(task.get_name() for task in self._begun if not task.done())) or "none"

    def check_alive(self) -> None:
        """Raise `Crashed` in a dead process."""
        if self._dead:
            raise Crashed

    def _check(self) -> None:
        self.check_alive()
        if self.paused:
            raise Paused
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
