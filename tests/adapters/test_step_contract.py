"""One contract for the runners of steps, over SSH and with agents, real and simulated: three outcomes, no error."""

import asyncio

import pytest

from tests.adapters.steps import Bench


async def test_a_step_is_done_and_done_again_it_changes_nothing(step_bench: Bench) -> None:
    first = await step_bench.at_epoch(1).run(step_bench.calls.done())
    assert (first.kind, first.code, step_bench.calls.effects()) == ("done", "", 1)
    assert await step_bench.at_epoch(1).run(step_bench.calls.done()) == first
    assert step_bench.calls.effects() == 1


async def test_a_step_that_fails_says_why_and_the_next_one_is_done(step_bench: Bench) -> None:
    outcome = await step_bench.at_epoch(1).run(step_bench.calls.fails())
    assert outcome.kind == "failed"
    assert outcome.code
    assert outcome.message
    assert (await step_bench.at_epoch(1).run(step_bench.calls.done())).kind == "done"


async def test_of_a_step_that_is_not_answered_in_time_nobody_knows(step_bench: Bench) -> None:
    async with step_bench.stalled():
        began = asyncio.get_running_loop().time()
        outcome = await step_bench.at_epoch(1).run(step_bench.calls.done(timeout_ms=700))
        assert (outcome.kind, outcome.code, outcome.may_have_run) == ("unknown", step_bench.calls.silent, True)
        assert asyncio.get_running_loop().time() - began >= 0.7
    assert (await step_bench.at_epoch(1).run(step_bench.calls.again())).kind == "done"


async def test_a_step_that_is_cancelled_ends_at_once_and_leaves_the_runner_well(step_bench: Bench) -> None:
    async with step_bench.stalled():
        step = asyncio.create_task(step_bench.at_epoch(1).run(step_bench.calls.done()))
        await asyncio.wait({step}, timeout=0.3)
        assert not step.done()
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
    assert (await step_bench.at_epoch(1).run(step_bench.calls.again())).kind == "done"


async def test_what_comes_of_a_lower_epoch_than_the_highest_seen_is_refused(step_bench: Bench) -> None:
    calls = step_bench.calls
    assert (await step_bench.at_epoch(7).run(calls.done(epoch=7, step="7"))).kind == "done"
    late = await step_bench.at_epoch(6).run(calls.done(epoch=6, step="6"))
    assert (late.kind, late.code) == ("failed", calls.stale)
    assert "highest seen 7" in late.message
    assert calls.effects() == 1
    assert (await step_bench.at_epoch(8).run(calls.done(epoch=8, step="8"))).kind == "done"


async def test_a_node_that_is_not_there_is_a_failure_like_others(step_bench: Bench) -> None:
    outcome = await step_bench.at_epoch(1).run(step_bench.calls.done("gone"))
    assert (outcome.kind, outcome.code) == ("failed", step_bench.calls.absent)
    assert step_bench.calls.effects() == 0
