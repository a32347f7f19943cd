"""Trunk supervision in the manner of OTP: order, strategies, budgets, fencing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from adapters.simulated.loop import VirtualLoop
from amends.runtime.trunk import (
    ChildSpec,
    Strategy,
    Supervisor,
    SupervisorSpec,
    TrunkFailed,
    to_restart,
    within_budget,
)
from amends.values.backoff import Backoff
from amends.values.errors import BadDomain, Fenced

QUICK = Backoff(1, 2)
Log = list[str]


def child(name: str, log: Log, crash: asyncio.Event | None = None, error: Exception | None = None) -> ChildSpec:
    async def run() -> None:
        log.append(f"+{name}")
        try:
            await (crash.wait() if crash is not None else asyncio.Event().wait())
            if crash is not None:
                crash.clear()
            raise error or RuntimeError("crash")
        except asyncio.CancelledError:
            log.append(f"-{name}")
            raise

    return ChildSpec(name=name, run=run)


@asynccontextmanager
async def running(spec: SupervisorSpec) -> AsyncIterator[tuple[Supervisor, "asyncio.Task[None]"]]:
    supervisor = Supervisor(spec)
    task = asyncio.create_task(supervisor.run())
    await supervisor.started.wait()
    await asyncio.sleep(0)
    yield supervisor, task
    task.cancel()
    await asyncio.wait({task})


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.001)


async def test_children_start_in_order_and_stop_in_reverse() -> None:
    log: Log = []
    async with running(SupervisorSpec(name="t", children=[child(name, log) for name in "abc"])):
        assert log == ["+a", "+b", "+c"]
    assert log[3:] == ["-c", "-b", "-a"]


async def test_a_child_finishes_what_those_stopped_before_it_have_left() -> None:
    log: Log = []
    left = asyncio.Event()

    async def writes() -> None:
        await left.wait()
        log.append("written")
        await asyncio.Event().wait()

    async def leaves() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async def written() -> None:
        while "written" not in log:
            await asyncio.sleep(0)

    journal = ChildSpec(name="journal", run=writes, finish=written)
    async with running(SupervisorSpec(name="t", children=[journal, ChildSpec(name="relay", run=leaves)])):
        assert log == []
    assert log == ["written"]


async def test_a_child_that_does_not_finish_is_stopped_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    log: Log = []

    async def never() -> None:
        await asyncio.Event().wait()

    async def wrong() -> None:
        raise RuntimeError("no way")

    children = [
        msgspec.structs.replace(child("a", log), finish=never, shutdown_ms=20),
        msgspec.structs.replace(child("b", log), finish=wrong),
    ]
    async with running(SupervisorSpec(name="t", children=children)):
        assert log == ["+a", "+b"]
    assert log[2:] == ["-b", "-a"]
    assert "t/b could not finish" in caplog.text


@pytest.mark.parametrize(
    ("strategy", "then"),
    [
        ("one_for_one", ["+b"]),
        ("rest_for_one", ["-c", "+b", "+c"]),
        ("one_for_all", ["-c", "-a", "+a", "+b", "+c"]),
    ],
)
async def test_a_crash_restarts_what_the_strategy_says(strategy: Strategy, then: Log) -> None:
    log: Log = []
    crash = asyncio.Event()
    children = [child("a", log), child("b", log, crash), child("c", log)]
    async with running(SupervisorSpec(name="t", children=children, strategy=strategy, backoff=QUICK)) as (tree, _):
        crash.set()
        await until(lambda: len(log) == 3 + len(then))
        assert log[3:] == then
        assert {row["name"]: row["restarts"] for row in tree.tree()["children"]}["b"] == 1


async def test_a_spent_budget_fails_upward_and_stops_the_others() -> None:
    log: Log = []

    async def crash() -> None:
        raise RuntimeError("again")

    spec = SupervisorSpec(
        name="t", children=[child("a", log), ChildSpec(name="b", run=crash)], max_restarts=2, backoff=QUICK
    )
    with pytest.raises(RuntimeError, match="restart budget is spent, last by b"):
        await Supervisor(spec).run()
    assert log[-1] == "-a"


async def test_a_fenced_child_ends_the_tree_at_once() -> None:
    log: Log = []
    crash = asyncio.Event()
    async with running(SupervisorSpec(name="t", children=[child("a", log, crash, Fenced("older"))])) as (_, task):
        crash.set()
        await asyncio.wait({task}, timeout=5)
        with pytest.raises(Fenced):
            task.result()


async def test_a_fatal_child_is_not_started_again(caplog: pytest.LogCaptureFixture) -> None:
    log: Log = []
    starts: Log = []

    async def crash() -> None:
        starts.append("start")
        raise RuntimeError("its queue is lost")

    spec = SupervisorSpec(name="t", children=[child("a", log), ChildSpec(name="b", run=crash, fatal=True)])
    with pytest.raises(RuntimeError, match="b has ended, and cannot go on by itself"):
        await Supervisor(spec).run()
    assert starts == ["start"]
    assert log == ["+a", "-a"]


async def test_a_transient_child_that_ends_well_is_left_alone() -> None:
    log: Log = []

    async def once() -> None:
        log.append("once")

    spec = SupervisorSpec(name="t", children=[ChildSpec(name="a", run=once, restart="transient")], backoff=QUICK)
    async with running(spec):
        await asyncio.sleep(0.05)
    assert log == ["once"]


async def test_the_next_child_waits_until_the_one_before_is_ready() -> None:
    log: Log = []
    asked, ready = asyncio.Event(), asyncio.Event()

    async def is_ready() -> None:
        asked.set()
        await ready.wait()

    first = child("a", log)
    spec = SupervisorSpec(
        name="t", children=[ChildSpec(name="a", run=first.run, ready=is_ready), child("b", log)], backoff=QUICK
    )
    supervisor = Supervisor(spec)
    task = asyncio.create_task(supervisor.run())
    await asked.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert log == ["+a"]
    ready.set()
    await supervisor.started.wait()
    await asyncio.sleep(0)
    assert log == ["+a", "+b"]
    task.cancel()
    await asyncio.wait({task})


def test_the_restart_budget_is_a_pure_function_of_instants() -> None:
    assert within_budget([], 10.0, 1, 30)
    assert not within_budget([5.0], 10.0, 1, 30)
    assert within_budget([5.0], 36.0, 1, 30)
    assert not within_budget([1.0, 2.0, 3.0], 10.0, 3, 30)


def test_which_children_a_failure_restarts() -> None:
    assert to_restart("one_for_one", ["a", "b", "c"], "b") == ["b"]
    assert to_restart("rest_for_one", ["a", "b", "c"], "b") == ["b", "c"]
    assert to_restart("one_for_all", ["a", "b", "c"], "b") == ["a", "b", "c"]


def test_two_children_of_one_name_are_refused() -> None:
    log: Log = []
    with pytest.raises(BadDomain, match="two children share a name"):
        Supervisor(SupervisorSpec(name="t", children=[child("a", log), child("a", log)]))


def test_a_restart_that_waits_holds_nobody_up() -> None:
    """One child waits for its time; meanwhile another ends, is heard at once, and ends the tree."""
    log: Log = []
    loop = VirtualLoop()
    crash, end = asyncio.Event(), asyncio.Event()
    slow = msgspec.structs.replace(child("slow", log, crash), restart="permanent")
    fatal = msgspec.structs.replace(child("fatal", log, end), fatal=True)

    async def story() -> float:
        spec = SupervisorSpec(name="t", children=[slow, fatal], backoff=Backoff(3_600_000, 3_600_000))
        tree = asyncio.create_task(Supervisor(spec, lambda count: b"\xff" * count).run())
        await asyncio.sleep(1)
        crash.set()
        await asyncio.sleep(1)
        end.set()
        with pytest.raises(TrunkFailed, match="fatal has ended"):
            await tree
        return loop.time()

    assert loop.run_until_complete(story()) < 3
    loop.close()


def test_a_restart_that_is_never_ready_is_one_more_failure() -> None:
    loop = VirtualLoop()
    begun: list[float] = []
    ready = asyncio.Event()
    ready.set()

    async def run() -> None:
        begun.append(loop.time())
        await asyncio.sleep(1 if len(begun) == 1 else 3600)
        ready.clear()

    async def is_ready() -> None:
        await ready.wait()

    async def story() -> None:
        spec = SupervisorSpec(
            name="t", children=[ChildSpec(name="a", run=run, ready=is_ready)], backoff=QUICK, ready_timeout_s=5,
            max_restarts=3, within_s=60,
        )  # fmt: skip
        with pytest.raises(TrunkFailed, match="the restart budget is spent, last by a"):
            await Supervisor(spec).run()

    loop.run_until_complete(story())
    assert len(begun) == 4
    loop.close()


def test_a_child_that_cannot_even_be_begun_again_ends_the_tree() -> None:
    """It is heard, and not lost with the restart's own task."""
    loop = VirtualLoop()

    async def run() -> None:
        await asyncio.sleep(1)

    async def story() -> None:
        tree = Supervisor(SupervisorSpec(name="t", children=[ChildSpec(name="a", run=run)], backoff=QUICK))
        tree._start_again = broken  # type: ignore[method-assign]
        with pytest.raises(TrunkFailed, match="a cannot be started again"):
            await tree.run()

    async def broken(name: str, delay_s: float) -> None:
        raise OSError("no room")

    loop.run_until_complete(story())
    loop.bury()
    loop.close()
