"""The dispatcher: what waits for its next try is due now where an operator says so, and nothing else is."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from adapters.simulated.loop import VirtualLoop
from amends.domain.steps import StepSpec
from amends.ports.clock import REAL
from amends.ports.steps import Outcome, StepCall
from amends.runtime.dispatcher import Dispatcher
from amends.values.errors import BadDomain
from amends.values.limits import Limits
from amends.values.records import StepRow
from tests.patience import PATIENCE_S

HOUR_US = 3_600_000_000


class World:
    """A dispatcher whose adapter notes what it did."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.outcome = Outcome("done")
        self.told: list[tuple[str, str, Any]] = []
        self.near = self.leads = True
        context = SimpleNamespace(
            limits=Limits({"work_ms": 60_000}), epoch=1, matrix=SimpleNamespace(row_for=lambda name: None)
        )
        engine: Any = SimpleNamespace(
            context=context,
            now_us=self.now_us,
            tell=lambda *args: self.told.append(args),
            monotonic_us=REAL.monotonic_us,
        )
        spec = StepSpec(name="work", adapter="any", effect=False, needs_if={"careful": "near"}, timeout="work_ms")
        conditions = {"near": lambda target: self.near}
        self.dispatcher = Dispatcher(
            engine, {"work": spec}, {"any": self}, may_act=lambda: self.leads, conditions=conditions
        )

    def now_us(self) -> int:
        return time.monotonic_ns() // 1000

    async def run(self, call: StepCall) -> Outcome:
        self.done.append(call.step_id)
        if call.step_id.startswith("hangs"):
            await asyncio.Event().wait()
        return self.outcome

    def intend(
        self, step_id: str, entity: str, target: str, args: str = "{}", after_us: int = HOUR_US, epoch: int = 1
    ) -> None:
        self.dispatcher.accept(
            StepRow(
                step_id, entity, "work", 1, "intended", step_id, target, args, "{}", "t", "s", 1, None,
                self.now_us() + after_us, "", "", epoch,
            )
        )  # fmt: skip

    def hasten(self, entity: str, target: str) -> None:
        decision: Any = SimpleNamespace(steps=[], hastened=[target], ref=entity)
        self.dispatcher.follow(decision)


async def test_what_an_operator_asks_for_waits_for_no_next_try_and_others_wait_on() -> None:
    # given steps in back-off: two of one actor on different targets, one of another
    world = World()
    for step_id, entity, target in (("a1", "x:a", "node:1"), ("a2", "x:a", "node:2"), ("b1", "x:b", "node:1")):
        world.intend(step_id, entity, target)
    task = asyncio.create_task(world.dispatcher.run())
    # when one of them is asked for now
    world.hasten("x:a", "node:1")
    async with asyncio.timeout(PATIENCE_S):
        while not world.done:
            await asyncio.sleep(0.001)
    # then it alone has run; asked for once more, nothing is left to run
    world.hasten("x:a", "node:1")
    assert (world.done, world.dispatcher.waiting) == (["a1"], 2)
    task.cancel()
    await asyncio.wait({task})


async def test_nothing_begins_while_the_lease_is_old() -> None:
    world = World()
    world.leads = False
    running = asyncio.create_task(world.dispatcher.run())
    world.intend("s1", "thing:1", "node:n1", after_us=0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert (world.done, world.dispatcher.waiting) == ([], 1)
    # when it is fresh again
    world.leads = True
    async with asyncio.timeout(PATIENCE_S):
        while not world.told:
            await asyncio.sleep(0.01)
    assert world.done == ["s1"]
    running.cancel()
    await world.dispatcher.drain(0)


async def test_a_target_has_one_step_at_a_time_and_others_are_not_held_by_it() -> None:
    world = World()
    running = asyncio.create_task(world.dispatcher.run())
    world.intend("hangs on n1", "thing:1", "node:n1", after_us=0)
    world.intend("second on n1", "thing:2", "node:n1", after_us=0)
    world.intend("on n2", "thing:3", "node:n2", after_us=0)
    async with asyncio.timeout(PATIENCE_S):
        while len(world.told) < 1:
            await asyncio.sleep(0.01)
    assert sorted(world.done) == ["hangs on n1", "on n2"]
    assert (world.dispatcher.running, world.dispatcher.waiting) == (1, 1)
    running.cancel()
    await world.dispatcher.drain(0)


async def test_a_try_that_an_earlier_runtime_may_have_begun_may_have_run_whatever_this_one_says() -> None:
    world = World()
    world.outcome = Outcome("failed", "unreachable", may_have_run=False)
    running = asyncio.create_task(world.dispatcher.run())
    world.intend("of an earlier one", "thing:1", "node:n1", after_us=0, epoch=0)
    world.intend("our own", "thing:2", "node:n2", after_us=0)
    async with asyncio.timeout(PATIENCE_S):
        while len(world.told) < 2:
            await asyncio.sleep(0.01)
    assert {env.message.step_id: env.message.outcome.may_have_run for _, _, env in world.told} == {
        "of an earlier one": True, "our own": False,
    }  # fmt: skip
    running.cancel()
    await world.dispatcher.drain(0)


async def test_a_step_that_lacks_what_it_needs_holds_no_other_step() -> None:
    # given a step that waits for what it needs, and one that needs nothing
    world = World()
    world.near = False
    world.intend("waits", "x:a", "node:1", '{"careful":true}', 0)
    world.intend("goes", "x:c", "node:3", after_us=0)
    task = asyncio.create_task(world.dispatcher.run())
    async with asyncio.timeout(PATIENCE_S):
        while not world.told:
            await asyncio.sleep(0.001)
    assert world.done == ["goes"]
    # when what it needs is so, then the first one is done as well
    world.near = True
    world.dispatcher.wake("node:1")
    async with asyncio.timeout(PATIENCE_S):
        while world.done != ["goes", "waits"]:
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait({task})


def test_a_step_whose_adapter_never_comes_back_is_unknown_once_its_time_is_over() -> None:
    # given one that hangs, beside one that is done; in virtual time
    loop, world = VirtualLoop(), World()

    async def story() -> None:
        task = asyncio.create_task(world.dispatcher.run())
        began = asyncio.get_running_loop().time()
        world.intend("hangs", "x:a", "node:1", after_us=0)
        world.intend("goes", "x:c", "node:3", after_us=0)
        while len(world.told) < 2:
            await asyncio.sleep(0.5)
        # then it has ended when its time and the grace were over, and nobody knows what it has done
        assert 65.0 <= asyncio.get_running_loop().time() - began < 66.0
        (_, _, goes), (_, _, hangs) = world.told
        assert (goes.message.outcome.kind, hangs.message.outcome.kind) == ("done", "unknown")
        assert (hangs.message.outcome.code, hangs.message.outcome.may_have_run) == ("timeout", True)
        assert world.dispatcher.running == 0
        task.cancel()
        await asyncio.wait({task})

    loop.run_until_complete(story())
    loop.close()


async def test_a_stop_is_no_outcome_of_a_step_that_hangs() -> None:
    world = World()
    world.intend("hangs", "x:a", "node:1", after_us=0)
    task = asyncio.create_task(world.dispatcher.run())
    async with asyncio.timeout(PATIENCE_S):
        while not world.done:
            await asyncio.sleep(0.001)
    await world.dispatcher.drain(0.01)
    assert (world.told, world.dispatcher.running) == ([], 0)
    task.cancel()
    await asyncio.wait({task})


def test_a_step_that_needs_what_nobody_can_tell_is_refused_at_the_start() -> None:
    spec = StepSpec(name="work", adapter="any", needs=("the moon",))
    with pytest.raises(BadDomain, match=r"'work' needs .*the moon"):
        Dispatcher(cast("Any", None), {"work": spec}, {}, may_act=lambda: True)
