"""Bugs planted on purpose, each caught by name: a check that cannot fail proves nothing (reliability.md)."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from amends.delivery.notices import NoticeRunner
from amends.ports.steps import Outcome, StepCall
from amends.runtime import loading
from amends.runtime.engine import Engine
from amends.runtime.writer import JournalWriter, Pending
from amends.turn.decision import Decision
from amends.turn.recovery import Run
from supervisors.invariants.records import Violation
from supervisors.simulation.stories import STORIES, Story
from supervisors.simulation.sweep import tell, wrong
from supervisors.simulation.world import NotQuiet, Running, World
from tests.amends.test_law import test_undo_goes_backwards_and_runs_the_step_that_is_declared as undo_goes_backwards

BY_ROW = {story.row: story for story in STORIES}


def is_caught(name: str, story: Story, *modes: str) -> bool:
    """Whether the sweep of a story finds that violation at one of its points."""
    for point in tell(story).points:
        for mode in modes:
            try:
                told = tell(story, point.number, mode)
            except (NotQuiet, RuntimeError):  # the story never ends
                if name == "L1":
                    return True
                continue
            if name in {violation.name for violation in wrong(story, told.world)}:
                return True
    return False


def test_an_acknowledgement_before_its_commit_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = JournalWriter.submit

    def early(self: JournalWriter, pending: Pending) -> None:
        done, pending.done = pending.done, lambda error: None
        real(self, pending)
        done(None)

    monkeypatch.setattr(JournalWriter, "submit", early)
    assert is_caught("C7", BY_ROW["R02"], "before")


def test_an_undo_in_start_order_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def forwards(self: Run, **options: Any) -> bool:
        d = self._d
        if not d.state.owed:
            return False
        owed = d.state.owed[0]
        d.step(owed.step, owed.target, owed.args)
        return True

    monkeypatch.setattr(Run, "undo", forwards)
    with pytest.raises(AssertionError):
        undo_goes_backwards()


def test_a_random_idempotency_key_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = NoticeRunner.run

    async def minted(self: NoticeRunner, call: StepCall) -> Outcome:
        args = {**call.args, "message_id": secrets.token_hex(8)}
        return await real(self, msgspec.structs.replace(call, args=args))

    monkeypatch.setattr(NoticeRunner, "run", minted)
    assert is_caught("C2", BY_ROW["R04"], "lost")


def test_a_timer_that_a_restart_loses_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = loading.load_actors

    async def without_timers(engine: Engine, *args: Any) -> int:
        arm: Callable[..., None] = engine.timers.arm
        monkeypatch.setattr(engine.timers, "arm", lambda *args: None)
        count = await real(engine, *args)
        monkeypatch.setattr(engine.timers, "arm", arm)
        return count

    monkeypatch.setattr("amends.kernel.load_actors", without_timers)
    assert is_caught("L1", BY_ROW["R03"], "after")


# --- epochs ----------------------------------------------------------------------------------------------


def rebooted_under_a_set_up() -> list[Violation]:
    """The machine restarts after its user was made: the reservation is of another epoch, and must come to nothing."""
    world = World()
    machine = world.machine("n1")
    machine.break_next("key-install", "slow", 1)

    async def story(running: Running) -> None:
        await running.account("acme")
        await running.node("n1")
        allocation = await running.rent("acme", "rent")
        await running.until(lambda: bool(machine.customers()))
        machine.boot_id = "another"
        await running.until(lambda: running.state("allocation", allocation) in ("active", "failed"))
        if running.state("allocation", allocation) == "active":
            world.broken.append(Violation("A5", allocation, "it runs on a machine that is another one"))
        await asyncio.sleep(5)

    assert world.run(story)
    return world.broken


def test_an_epoch_check_that_is_dropped_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rebooted_under_a_set_up() == []
    real = Decision.require

    def any_epoch(
        self: Decision, kind: str, identifier: str, states: tuple[str, ...], epoch: int | None = None
    ) -> None:
        real(self, kind, identifier, states)

    monkeypatch.setattr(Decision, "require", any_epoch)
    assert [violation.name for violation in rebooted_under_a_set_up()] == ["A5"]
