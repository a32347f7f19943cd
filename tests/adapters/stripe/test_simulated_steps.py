"""The simulated Stripe in virtual time: the same every time, and what was sent is done though its sender died."""

import asyncio
from collections.abc import Coroutine
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.simulated.faults import NoFaults
from adapters.simulated.loop import Clock, Crashed, VirtualLoop
from adapters.simulated.stripe_faults import FaultKind, StripeFault
from adapters.simulated.stripe_steps import SimulatedMirror, SimulatedStripe
from amends.ports.steps import Outcome, StepCall

START_S = 1_768_478_400.0


class World:
    """A Stripe that outlives processes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.stripe = SimulatedStripe(lambda: START_S + self.clock.now)
        self.customer = self.stripe.customer()

    def run(self, work: Coroutine[Any, Any, Any], dies_after_s: float = 0.0) -> Any:
        """A process that does that, or dies before; what came of it."""
        loop = VirtualLoop(clock=self.clock)
        if dies_after_s:
            loop.call_later(dies_after_s, loop.crash)
        try:
            return loop.run_until_complete(work)
        except Crashed:
            return None
        finally:
            loop.bury()
            loop.close()

    async def credit(self, faults: NoFaults | None = None, timeout_ms: int = 10_000, **more: Any) -> Outcome:
        args = {"customer": self.customer, "amount_minor": 5, "currency": "usd", "ledger_key": "k",
                "first_us": int(START_S * 1e6), **more}  # fmt: skip
        call = StepCall("s", "stripe.credit", "a", "a", args, 1, "i", 1, timeout_ms, "a" * 32, "b" * 16)
        mirror = SimulatedMirror(
            self.stripe, now_us=lambda: int((START_S + self.clock.now) * 1e6), faults=faults or NoFaults()
        )
        return await mirror.run(call)

    def credits(self) -> int:
        return len(self.stripe.mirrored(self.customer).get("k", []))


def test_a_request_whose_sender_died_is_done_all_the_same_and_once() -> None:
    world = World()
    world.stripe.book.faults.add(StripeFault("delay", seconds=2.0))
    assert world.run(world.credit(), dies_after_s=1.0) is None
    assert world.credits() == 0
    assert world.run(world.credit()).code == "stripe_in_flight"
    world.clock.now += 2.0
    assert world.credits() == 1
    assert world.run(world.credit()).kind == "done"
    assert world.credits() == 1


class Dying(NoFaults):
    """The process dies before the request is sent, or after it was answered."""

    def __init__(self, when: str) -> None:
        self._when = when

    async def before(self, what: str) -> None:
        self._die("before")

    async def after(self, what: str) -> None:
        self._die("after")

    def _die(self, when: str) -> None:
        if when == self._when:
            raise Crashed


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
def test_both_points_of_a_step_are_passed(when: str, made: int) -> None:
    world = World()
    assert world.run(world.credit(Dying(when))) is None
    assert world.credits() == made
    assert world.run(world.credit()).kind == "done"
    assert world.credits() == 1


def test_time_that_passes_is_the_loops_own() -> None:
    world = World()
    world.stripe.book.faults.add(StripeFault("delay", seconds=3600.0))
    outcome = world.run(world.credit(timeout_ms=60_000))
    assert (outcome.code, world.clock.now) == ("stripe_timeout", 60.0)


def test_the_same_story_gives_the_same_answers_and_objects() -> None:
    def told() -> tuple[list[Outcome], dict[str, Any]]:
        world = World()

        async def story() -> list[Outcome]:
            world.stripe.book.faults.add(StripeFault("cut"))
            world.stripe.book.faults.add(StripeFault("stored_error"))
            world.stripe.book.faults.add(StripeFault("delay", seconds=0.5))
            outcomes = [await world.credit() for _ in range(3)]
            return [*outcomes, *await asyncio.gather(world.credit(), world.credit())]

        return world.run(story()), world.stripe.book.objects

    first, second = told(), told()
    assert first == second
    assert {outcome.kind for outcome in first[0]} == {"unknown", "done"}


Trouble = st.tuples(
    st.sampled_from([*get_args(FaultKind), None]), st.sampled_from([0.0, 0.5, 3600.0, 40_000.0, 90_000.0])
)


@given(troubles=st.lists(Trouble, max_size=12), dies_after_s=st.sampled_from([0.0, 0.2]))
def test_whatever_goes_wrong_a_caller_that_keeps_the_rule_ends_with_one_transaction(
    troubles: list[tuple[FaultKind | None, float]], dies_after_s: float
) -> None:
    """The rule: again with the same key, and after a stored error with the next generation, which looks first."""
    world, generation = World(), 0
    for kind, passes_s in troubles:
        if kind is not None:
            world.stripe.book.faults.add(StripeFault(kind, seconds=0.4 if passes_s else 2.0))
        outcome = world.run(world.credit(timeout_ms=1000, generation=generation, look_up=generation > 0), dies_after_s)
        if outcome is not None and outcome.code == "stripe_stored_error":
            generation += 1
        world.clock.now += passes_s
        assert world.credits() <= 1
    world.stripe.book.faults.mend()
    ended: list[str] = []
    for _ in range(3):  # what was kept under the key may be an error still
        world.clock.now += 10.0
        outcome = world.run(world.credit(generation=generation, look_up=generation > 0))
        generation += outcome.code == "stripe_stored_error"
        ended.append(outcome.kind)
    assert (ended[-1], world.credits()) == ("done", 1)
