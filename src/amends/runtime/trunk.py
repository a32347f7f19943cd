"""Trunk supervision in the manner of OTP: child specs as checked data, order, strategies, restart budgets.

Children are the process's own services, each one task. Start in order, stop in reverse. A crash, and a failed
restart too, is a message to the supervisor. When the budget is spent the supervisor fails upward.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from msgspec import Struct

from amends.ports.clock import REAL
from amends.values.backoff import Backoff
from amends.values.errors import BadDomain, Fenced

log = logging.getLogger("amends.trunk")
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]


class TrunkFailed(RuntimeError):
    """The tree cannot go on: a budget is spent, or a fatal child has ended. Starting anew loses nothing committed."""


class ChildSpec(Struct, frozen=True, kw_only=True):
    """One service. `run` works until cancelled; `ready`, if given, returns when it can be relied on.

    A `fatal` one is not started again: what it held is in memory only, so its crash ends the tree, and the next start
    takes everything from the database. `finish` is waited for, at most `shutdown_ms`, before a running one is
    cancelled: what others, stopped before it, have left it to do.
    """

    name: str
    run: Callable[[], Awaitable[None]]
    ready: Callable[[], Awaitable[None]] | None = None
    restart: Literal["permanent", "transient", "temporary"] = "permanent"
    fatal: bool = False
    shutdown_ms: int = 2000
    finish: Callable[[], Awaitable[None]] | None = None
    detail: Callable[[], dict[str, Any]] | None = None


class SupervisorSpec(Struct, frozen=True, kw_only=True):
    """A supervisor: at most `max_restarts` within `within_s` seconds."""

    name: str
    children: Sequence[ChildSpec]
    strategy: Strategy = "one_for_one"
    max_restarts: int = 5
    within_s: int = 30
    backoff: Backoff = Backoff(50, 5000)
    ready_timeout_s: int = 30


def check_spec(spec: SupervisorSpec) -> None:
    """Refuse a spec that does not hold together."""
    names = [child.name for child in spec.children]
    if len(set(names)) != len(names):
        raise BadDomain(f"supervisor {spec.name}: two children share a name")
    if spec.max_restarts < 0 or spec.within_s <= 0:
        raise BadDomain(f"supervisor {spec.name}: the restart budget must be positive")


def within_budget(restarts: Sequence[float], now: float, max_restarts: int, within_s: float) -> bool:
    """Whether one more restart at `now` is allowed after those at the given instants (seconds)."""
    return sum(1 for at in restarts if now - at < within_s) < max_restarts


def to_restart(strategy: Strategy, names: Sequence[str], failed: str) -> list[str]:
    """Which children are stopped and started again when `failed` ends, in start order."""
    if strategy == "one_for_one":
        return [failed]
    if strategy == "one_for_all":
        return list(names)
    return list(names[names.index(failed) :])


class Supervisor:
    """Runs its children until cancelled, fenced, or out of budget."""

    def __init__(self, spec: SupervisorSpec, entropy: Callable[[int], bytes] = REAL.entropy) -> None:
        check_spec(spec)
        self.spec, self._entropy = spec, entropy
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()  # children whose restart waits for its time
        self._again: dict[str, asyncio.Task[None]] = {}  # restarts, by the child that made them necessary
        self._restarts: dict[str, int] = dict.fromkeys((child.name for child in spec.children), 0)
        self._instants: list[float] = []
        self._children = {child.name: child for child in spec.children}
        self.started = asyncio.Event()

    async def run(self) -> None:
        """Start all, then watch; stops what it started whatever happens."""
        names = list(self._children)
        try:
            for name in names:
                await self._start(name)
            self.started.set()
            while True:
                name = await self._ended.get()
                again = self._again.get(name)
                if again is not None and again.done() and (error := again.exception()) is not None:
                    raise TrunkFailed(f"supervisor {self.spec.name}: {name} cannot be started again") from error
                task = self._tasks.get(name)
                if task is not None and task.done():
                    await self._ended_child(name, task)
        finally:
            for task in self._again.values():
                task.cancel()
            if self._again:
                await asyncio.wait(self._again.values())
            await self._stop(names)

    async def _ended_child(self, name: str, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Fenced):
            raise error
        child = self._children[name]
        if child.restart == "temporary" or (child.restart == "transient" and error is None):
            return
        log.error("%s/%s ended: %r", self.spec.name, name, error, exc_info=error)
        if child.fatal:
            raise TrunkFailed(f"supervisor {self.spec.name}: {name} has ended, and cannot go on by itself") from error
        names = list(self._children)
        if any(name in to_restart(self.spec.strategy, names, each) for each in self._waiting):
            return  # the restart that is to come takes it along
        now = asyncio.get_running_loop().time()
        if not within_budget(self._instants, now, self.spec.max_restarts, self.spec.within_s):
            raise TrunkFailed(f"supervisor {self.spec.name}: the restart budget is spent, last by {name}") from error
        self._instants = [at for at in self._instants if now - at < self.spec.within_s] + [now]
        self._restarts[name] += 1
        delay_us = self.spec.backoff.delay_us(self._restarts[name], name + self._entropy(8).hex())
        self._waiting.add(name)
        self._again[name] = asyncio.create_task(self._start_again(name, delay_us / 1e6), name=f"restart.{name}")
        self._again[name].add_done_callback(lambda done: self._ended.put_nowait(name))

    async def _start_again(self, name: str, delay_s: float) -> None:
        """Beside the supervisor: what ends meanwhile is heard at once. A failed restart is one more end."""
        await asyncio.sleep(delay_s)
        self._waiting.discard(name)
        again = to_restart(self.spec.strategy, list(self._children), name)
        await self._stop(again)
        for each in again:
            try:
                await self._start(each)
            except TimeoutError:
                self._tasks[each].cancel()  # it never was ready: its end is heard like any other
                return

    async def _start(self, name: str) -> None:
        child = self._children[name]
        task = asyncio.ensure_future(_coroutine(child))
        task.add_done_callback(lambda done: self._ended.put_nowait(name))
        self._tasks[name] = task
        if child.ready is not None:
            ready = asyncio.ensure_future(_awaited(child.ready))
            try:
                async with asyncio.timeout(self.spec.ready_timeout_s):
                    await asyncio.wait({ready, task}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ready.cancel()

    async def _stop(self, names: Sequence[str]) -> None:
        for name in reversed(names):
            task = self._tasks.pop(name, None)
            if task is None or task.done():
                continue
            child = self._children[name]
            try:
                await self._finish(child, task)
            finally:
                task.cancel()
            await asyncio.wait({task}, timeout=child.shutdown_ms / 1000)
            if not task.done():
                log.error("%s/%s did not stop in time", self.spec.name, name)

    async def _finish(self, child: ChildSpec, task: "asyncio.Task[None]") -> None:
        if child.finish is None:
            return
        finishing = asyncio.ensure_future(_awaited(child.finish))
        await asyncio.wait({finishing, task}, timeout=child.shutdown_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
        finishing.cancel()
        await asyncio.wait({finishing})
        if not finishing.cancelled() and (error := finishing.exception()) is not None:
            log.error("%s/%s could not finish", self.spec.name, child.name, exc_info=error)

    @property
    def restarts(self) -> dict[str, int]:
        """How often each child was started again."""
        return dict(self._restarts)

    def tree(self) -> dict[str, Any]:
        """The live tree, for `amends tree`."""
        return {
            "name": self.spec.name,
            "strategy": self.spec.strategy,
            "children": [self._describe(child) for child in self.spec.children],
        }

    def _describe(self, child: ChildSpec) -> dict[str, Any]:
        task = self._tasks.get(child.name)
        state = "running" if task is not None and not task.done() else "stopped"
        detail = child.detail() if child.detail is not None else {}
        return {"name": child.name, "state": state, "restarts": self._restarts[child.name], **detail}


async def _coroutine(child: ChildSpec) -> None:
    await child.run()


async def _awaited(ready: Callable[[], Awaitable[None]]) -> None:
    await ready()
