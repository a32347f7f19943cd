"""Deadlines of running tasks: who is over time is cancelled, nobody else, and what has ended leaves no trace."""

import asyncio

import pytest

from amends.runtime.deadlines import SPARE, Deadlines


async def _for_ever() -> None:
    await asyncio.Event().wait()


def _task() -> "asyncio.Task[None]":
    return asyncio.create_task(_for_ever())


async def test_who_is_over_time_is_cancelled_and_nobody_else() -> None:
    deadlines = Deadlines()
    late, early, ended = _task(), _task(), _task()
    assert deadlines.set(late, 20.0)
    assert deadlines.set(early, 10.0), "the first one due says so: whoever waits must wake earlier"
    assert not deadlines.set(ended, 15.0)
    assert deadlines.cancel_due(5.0) == 5.0
    deadlines.drop(ended)
    assert deadlines.cancel_due(10.0) == 10.0
    await asyncio.sleep(0)
    assert early.cancelled()
    assert (deadlines.is_over(early), deadlines.is_over(late), deadlines.is_over(ended)) == (True, False, False)
    deadlines.drop(early)
    assert (len(deadlines), late.done(), ended.done()) == (1, False, False)
    late.cancel()
    ended.cancel()


async def test_with_none_there_is_nothing_to_wait_for() -> None:
    deadlines = Deadlines()
    assert deadlines.cancel_due(0.0) is None
    task = _task()
    deadlines.set(task, 1.0)
    deadlines.drop(task)
    assert deadlines.cancel_due(2.0) is None
    task.cancel()


@pytest.mark.parametrize("still", [0, 1, 100])
async def test_what_has_ended_does_not_pile_up_until_its_time(still: int) -> None:
    deadlines = Deadlines()
    running = [_task() for _ in range(still)]
    for task in running:
        deadlines.set(task, 1e9)
    for _ in range(5000):
        task = _task()
        deadlines.set(task, 1e9)
        deadlines.drop(task)
        task.cancel()
        assert len(deadlines._heap) <= 2 * (still + 1) + SPARE
    assert len(deadlines) == still
    deadlines.cancel_due(1e9)
    await asyncio.sleep(0)
    assert all(task.cancelled() for task in running)
