"""The step dispatcher: runs intended steps under limits and brings their outcome back as a message.

A step starts only after its intent has committed, while the lease is fresh, while what it needs is so, its target can
be reached and has a free place. A held step spends no try. What a crash leaves `intended` is dispatched again.
"""

import asyncio
import contextlib
import heapq
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import msgspec

from amends.domain.steps import StepSpec
from amends.ports.steps import Outcome, StepCall, StepRunner
from amends.runtime.deadlines import Deadlines
from amends.runtime.engine import Engine
from amends.runtime.places import Places, Reach
from amends.runtime.slices import Slices
from amends.turn.decision import Decision
from amends.turn.messages import Envelope, StepDone
from amends.values import ids
from amends.values.errors import BadDomain
from amends.values.histogram import Histogram
from amends.values.records import StepRow

log = logging.getLogger("amends.steps")
GRACE_S = 5.0
LEASE_RETRY_S = 0.2
HELD_RETRY_US = 1_000_000
Condition = Callable[[str], bool]  # of a step's target
NO_CONDITIONS: Mapping[str, Condition] = {}


class Dispatcher:
    """All steps of one runtime that are intended and not yet ended."""

    def __init__(
        self,
        engine: Engine,
        steps: Mapping[str, StepSpec],
        runners: Mapping[str, StepRunner],
        *,
        may_act: Callable[[], bool],
        conditions: Mapping[str, Condition] = NO_CONDITIONS,
        domain_of: Callable[[str], str] = lambda target: "",
    ) -> None:
        self._engine, self._steps, self._runners = engine, steps, runners
        self._may_act, self._conditions, self._domain_of = may_act, conditions, domain_of
        for step in steps.values():
            if missing := {*step.needs, *step.needs_if.values()} - conditions.keys():
                raise BadDomain(f"step {step.name!r} needs {sorted(missing)}, which this runtime cannot tell")
        self.places, self.reach = Places(), Reach()
        self._later: list[tuple[int, str, str]] = []  # (due, target, step); stale entries are dropped when they come up
        self._back_off: dict[str, dict[str, StepRow]] = {}  # by target, what waits for its next try
        self._queues: dict[str, deque[StepRow]] = {}
        self._held: dict[str, deque[StepRow]] = {}
        self._running: dict[str, int] = {}
        self._tasks: dict[asyncio.Task[None], StepRow] = {}  # as they were begun
        self._deadlines = Deadlines()
        self._wake = asyncio.Event()
        self._ready: deque[str] = deque()
        self._next_look_us = 0
        self.stopping = False
        self.started = 0
        self.took: dict[str, Histogram] = {}  # by step

    # --- intake --------------------------------------------------------------------------------------

    def follow(self, decision: Decision) -> None:
        """A committed turn's intents."""
        for row in decision.steps:
            self.accept(row)
        for target in decision.hastened:
            waiting = self._back_off.get(target, {})
            for step_id in [each for each, row in waiting.items() if row.entity == decision.ref]:
                self._due(target, step_id)

    def accept(self, row: StepRow) -> None:
        """Take over an intended step: now, or when its time comes."""
        if row.next_attempt_us is not None and row.next_attempt_us > self._engine.now_us():
            heapq.heappush(self._later, (row.next_attempt_us, row.target, row.step_id))
            self._back_off.setdefault(row.target, {})[row.step_id] = row
            self._wake.set()
        else:
            self._enqueue(row)

    def args_of(self, row: StepRow) -> dict[str, Any]:
        """Its arguments in this release's shape; `LookupError` or `MsgspecError` when they cannot be made out."""
        return self._steps[row.name].read(row.args)

    def wake(self, target: str) -> None:
        """The target is back: what was held for it, or waits for its next try, is due now."""
        self.reach.forget(target)
        for row in self._held.pop(target, ()):
            self._enqueue(row)
        for row in self._back_off.pop(target, {}).values():
            self._enqueue(row)
        if target in self._queues:  # what waited for the time its reach was held until
            self._ready.append(target)
            self._wake.set()

    @property
    def waiting(self) -> int:
        """Steps intended and not running."""
        queues = (*self._queues.values(), *self._held.values())
        later = sum(len(rows) for rows in self._back_off.values())
        return later + sum(len(queue) for queue in queues)

    @property
    def running(self) -> int:
        """Steps under way."""
        return len(self._tasks)

    def open_on(self, targets: Collection[str]) -> list[StepRow]:
        """The steps of these targets that are intended or under way, those that run first."""
        found = [row for row in self._tasks.values() if row.target in targets]
        for target in sorted(targets):
            found += self._queues.get(target, ())
            found += self._held.get(target, ())
            found += self._back_off.get(target, {}).values()
        return found

    # --- the service ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start steps until cancelled."""
        while True:
            self._wake.clear()
            now, slices = self._engine.now_us(), Slices(self._engine.monotonic_us)
            while self._later and self._later[0][0] <= now:
                self._due(*heapq.heappop(self._later)[1:])
                await slices.shared()
            if self._held and now >= self._next_look_us:
                await self._look_at_held(slices)
                self._next_look_us = now + HELD_RETRY_US
            waits = [LEASE_RETRY_S] if await self._start_ready(slices) else []
            if self._held:
                waits.append(HELD_RETRY_US / 1e6)
            if self._later:
                waits.append(max(0.0, (self._later[0][0] - now) / 1e6))
            if (due_s := self._deadlines.cancel_due(asyncio.get_running_loop().time())) is not None:
                waits.append(due_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(waits, default=None)):
                    await self._wake.wait()

    def _due(self, target: str, step_id: str) -> None:
        if not step_id:  # the target may be tried again
            self._ready.append(target)
            return
        rows = self._back_off.get(target, {})
        row = rows.pop(step_id, None)
        if row is not None:
            self._enqueue(row)
        if not rows:
            self._back_off.pop(target, None)

    async def _look_at_held(self, slices: Slices) -> None:
        """Gates open without saying so (a link that is back): ask them again, once a second."""
        for target in list(self._held):
            await slices.shared()
            if target in self._held and self._fits(self._held[target][0]):
                for row in self._held.pop(target):
                    self._enqueue(row)

    async def drain(self, timeout_s: float) -> None:
        """Start nothing more; let what runs finish, within `timeout_s`. The rest stays intended."""
        self.stopping = True
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=timeout_s)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=1.0)

    def _enqueue(self, row: StepRow) -> None:
        queue = self._queues.get(row.target)
        if queue is None:
            queue = self._queues[row.target] = deque()
        queue.append(row)
        self._ready.append(row.target)
        self._wake.set()

    async def _start_ready(self, slices: Slices) -> bool:
        """Start what may start; True if the lease holds something back."""
        while True:
            self._ready.extend(self.places.named())
            if not self._ready or self.stopping:
                return False
            if not self._may_act():
                return True
            await slices.shared()
            self._start(self._ready.popleft())

    def _start(self, target: str) -> None:
        """Start the target's next step, if it has one that may."""
        queue = self._queues.get(target)
        if not queue or self._running.get(target, 0) >= self._steps[queue[0].name].per_target:
            return
        held_us = self.reach.held_until(self._steps[queue[0].name].adapter, target)
        if held_us and held_us > self._engine.now_us():
            heapq.heappush(self._later, (held_us, target, ""))
            return
        row = queue[0]
        if not self._fits(row):
            self._held.setdefault(target, deque()).append(queue.popleft())
        else:
            place = (self._steps[row.name].adapter, self._domain_of(target))
            if not self.places.take(*place, target):
                return
            queue.popleft()
            self._running[target] = self._running.get(target, 0) + 1
            task = asyncio.create_task(self._do(row), name=f"step.{row.name}")
            self._tasks[task] = row
            task.add_done_callback(partial(self._ended, target, place))
        if queue:
            self._ready.append(target)
        else:
            del self._queues[target]

    def _fits(self, row: StepRow) -> bool:
        """Whether what the step needs is so now (`StepSpec.needs`, `needs_if`)."""
        spec = self._steps[row.name]
        needs = spec.needs
        if spec.needs_if:
            args = self.args_of(row)
            needs += tuple(need for name, need in spec.needs_if.items() if args.get(name))
        return all(self._conditions[need](row.target) for need in needs)

    def _ended(self, target: str, place: tuple[str, str], task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._running[target] -= 1
        if not self._running[target]:
            del self._running[target]
        self.places.give(*place)
        if target in self._queues:
            self._ready.append(target)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a step's task failed", exc_info=error)

    async def _do(self, row: StepRow) -> None:
        spec = self._steps[row.name]
        self.started += 1
        timeout_ms = self._engine.context.limits(spec.timeout) if spec.timeout else 60_000
        args = self.args_of(row)
        call = StepCall(
            row.step_id, row.name, row.entity, row.target, args, row.attempt, row.idempotency_key,
            self._engine.context.epoch, timeout_ms, row.trace_id, ids.span_id("step", row.step_id),
        )  # fmt: skip
        started = self._engine.now_us()
        began = time.perf_counter()
        outcome = await self._outcome(spec, call)
        self.took.setdefault(row.name, Histogram()).observe(time.perf_counter() - began, row.trace_id)
        ended = self._engine.now_us()
        self.reach.took(spec.adapter, row.target, outcome, ended)
        if row.epoch != call.epoch:
            # An earlier runtime may have begun it: "certainly did not run" is said of this try alone (rule 1, A4).
            outcome = msgspec.structs.replace(outcome, may_have_run=True)
        done = StepDone(
            row.step_id, row.name, row.attempt, row.target, args, outcome, started, ended,
            row.trace_id, call.span_id,
        )  # fmt: skip
        kind, identifier = ids.split_ref(row.entity)
        # What follows hangs beside the step, not below it: a life is a list of steps under its command.
        env = Envelope(done, trace_id=row.trace_id, span_id=row.parent_span_id, priority=True)
        self._engine.tell(kind, identifier, env)

    async def _outcome(self, spec: StepSpec, call: StepCall) -> Outcome:
        task = asyncio.current_task()
        assert task is not None, "`_start` has made it"
        if self._deadlines.set(task, asyncio.get_running_loop().time() + call.timeout_ms / 1000 + GRACE_S):
            self._wake.set()
        try:
            return await self._runners[spec.adapter].run(call)
        except TimeoutError:
            return _no_outcome(call)
        except asyncio.CancelledError:
            if not self._deadlines.is_over(task) or task.uncancel():
                raise
            return _no_outcome(call)
        except Exception as error:
            log.exception("the adapter of %s raised", call.name)
            return Outcome("unknown", "internal", f"{type(error).__name__}: {error}")
        finally:
            self._deadlines.drop(task)


def _no_outcome(call: StepCall) -> Outcome:
    return Outcome("unknown", "timeout", f"{call.name} gave no outcome within its time")
