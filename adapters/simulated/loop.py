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
from typing import Any, NoReturn, cast

NEVER = float("inf")
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


class _Ready(deque[Any]):
    """The loop's queue of callbacks; each is taken only while the process lives."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self._check = check

    def popleft(self) -> Any:
        """The next callback; raises `Crashed`, `Paused`, `Livelock`."""
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
    """See above. `start_s`: what its clock shows at the beginning; `clock`: one that others have as well."""

    def __init__(self, start_s: float = 0.0, steps: int = STEPS, clock: Clock | None = None) -> None:
        super().__init__()
        self._clock = clock or Clock(start_s)
        self._clock_resolution = 1e-9
        self._left, self._dead, self.paused = steps, False, False
        self._ready = _Ready(self._check)
        self._selector = _Selector(self)
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
        """Let time pass."""
        self._clock.now += max(0.0, seconds)

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
        timers: list[asyncio.TimerHandle] = cast("Any", self)._scheduled  # noqa: SLF001 - no other way is named
        return max(self.time(), timers[0].when()) if timers else NEVER

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
