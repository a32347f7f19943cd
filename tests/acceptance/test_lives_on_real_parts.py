"""Random rentals on a real runtime, Postgres, NATS and SSH, the runtime killed between; each ledger by the book.

TEST_REAL_LIVES=1000 lives more of them (names that begin with AMENDS_ are for the runtime, which refuses unknown ones).
"""

import asyncio
import logging
import os
import random
import secrets
import time
from typing import Any

import pytest

from tests.acceptance.lives import Eyes, Life, killed_at_random, ledgers_by_the_book
from tests.acceptance.records import all_is_well
from tests.acceptance.world import World
from tests.proof import REAL_LIVES, counted

log = logging.getLogger(__name__)
pytestmark = pytest.mark.asyncio(loop_scope="module")
WINDOW_US = 1_000_000
LIVES = int(os.environ.get("TEST_REAL_LIVES", "100"))
MACHINES, AT_ONCE, A_KILL = 24, 10, 25  # never half of the machines silent at once: verdicts would be held
CONFIG = "[timing]\ncleanup_tries = 1000\nsetup_fail_limit = 1000\nallocation_deadline_ms = 60000\n"
LATE_US = 100_000  # a heartbeat on its way when the runtime answers
OLD_US = 600_000  # the heartbeat before, and a busy machine


def check_stop(life: Life, meter: dict[str, Any]) -> None:
    """Nobody pays past the last sign of life of his machine, nor is he given what it has shown to have run."""
    if life.died_us and meter["stop_cause"] != "node_rebooted":
        assert meter["stopped_us"] <= max(life.heard_us + LATE_US, meter["started_us"]), meter
        if life.quiet and meter["stop_cause"] == "node_offline":
            assert meter["stopped_us"] >= life.died_us - OLD_US, meter


@pytest.mark.slow
async def test_the_ledger_of_random_lives_is_the_formulas_whatever_is_killed(world: World) -> None:
    seed = int(os.environ.get("AMENDS_TEST_SEED", "0")) or secrets.randbits(32)
    log.warning("seed %d (AMENDS_TEST_SEED=%d repeats the choices)", seed, seed)
    chance, kills, began = random.Random(seed), 0, time.monotonic()
    for _ in range(MACHINES):
        await world.add_machine()
    eyes = Eyes(world)
    lives = [Life(world, eyes, chance, lambda: kills) for _ in range(LIVES)]
    waiting = list(enumerate(lives))

    async def one_after_the_other() -> None:
        while waiting:
            number, life = waiting.pop()
            await life.live(f"life-{number}")

    async def told() -> None:
        nonlocal kills
        kills += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(one_after_the_other())
        tasks.create_task(killed_at_random(world, LIVES // A_KILL, chance, told))
    await world.quiet()
    meters = await ledgers_by_the_book(world)
    assert len(meters) > 0.9 * LIVES
    for life in lives:
        if (meter := meters.get(life.allocation_id)) is not None:
            check_stop(life, meter)
    log.warning("%d lives, %d kills, %.0f s", LIVES, kills, time.monotonic() - began)
    counted[REAL_LIVES] += LIVES
    assert {meter["stop_cause"] for meter in meters.values()} == {
        "release", "force_release", "node_offline", "node_rebooted"
    }  # fmt: skip
    assert await world.rows("SELECT * FROM public_v1.recovery_run WHERE ended_at IS NULL") == []
    assert [machine.users for machine in world.machines.values()] == [[]] * MACHINES
    await all_is_well(world)
