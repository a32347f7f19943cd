"""Storage under races: whatever happens to an attachment, in any order and at any moment, leaves nothing."""

import asyncio
import contextlib
import random
from typing import Any

import pytest

from supervisors.simulation.storage_stories import ENDED, holds, rented
from supervisors.simulation.world import Refused, Running
from tests.simulated.storage import access_of, play


async def _lose(running: Running, allocation: str, attachment: str) -> None:
    running.world.machine("n1").up = False
    await running.until(lambda: running.state("node", "n1") == "offline")
    running.world.machine("n1").up = True


async def _release(running: Running, allocation: str, attachment: str) -> None:
    await running.release(allocation, "release")


async def _detach(running: Running, allocation: str, attachment: str) -> None:
    await _may(running, "cmd.attachment.detach", "detach", attachment_id=attachment)


async def _retry(running: Running, allocation: str, attachment: str) -> None:
    await _may(running, "ops.attachment.retry_detach", "retry", attachment_id=attachment, reason="a race")


async def _retry_too(running: Running, allocation: str, attachment: str) -> None:
    await _may(running, "ops.attachment.retry_detach", "retry-2", attachment_id=attachment, reason="another operator")


async def _fill(running: Running, allocation: str, attachment: str) -> None:
    holds(running.world, "data").used_bytes = 5000


async def _busy(running: Running, allocation: str, attachment: str) -> None:
    running.world.machine("n1").break_next("unmount", "busy", 3)


async def _slow(running: Running, allocation: str, attachment: str) -> None:
    for op in ("unmount", "mount", "probe_mount"):
        running.world.machine("n1").break_next(op, "lose", 1)


async def _may(running: Running, subject: str, key: str, **body: Any) -> None:
    with contextlib.suppress(Refused):  # it came too early or too late
        await running.ask(subject, key, **body)


RACES = [_lose, _release, _detach, _retry, _retry_too, _fill, _busy, _slow]


async def _tidy(running: Running, allocation: str, attachment: str) -> None:
    """An operator has all tried again that was given up."""
    number = 0

    def stuck() -> bool:
        body = running.body("attachment", attachment)
        return running.state("attachment", attachment) not in ENDED or bool(body.get("owing"))

    while stuck() or running.state("node", "n1") != "ready":
        number += 1
        if stuck():
            what, about = "ops.attachment.retry_detach", {"attachment_id": attachment}
        else:
            what, about = "ops.cleanup.retry", {"allocation_id": allocation}
        await _may(running, what, f"tidy-{number}", reason="tidy", **about)
        await asyncio.sleep(1)


FEW = 20  # for those in a hurry
SEEDS = [*range(120), 979, 1085]


@pytest.mark.parametrize("seed", [*SEEDS[:FEW], *(pytest.param(seed, marks=pytest.mark.slow) for seed in SEEDS[FEW:])])
def test_whatever_comes_at_once_nothing_is_left(seed: int) -> None:
    """Some of what may happen to an attachment, in any order and at any of its moments; then an operator tidies up."""
    chance = random.Random(seed)

    async def tell(running: Running) -> None:
        allocation = await rented(running)
        wish = {"allocation_id": allocation, "namespace_id": "data", "mode": "rw", "mount_path": "/mnt/data"}
        asked = await running.ask("cmd.attachment.attach", "attach", **wish)
        attachment = asked["attachment"]["attachment_id"]

        async def later(what: Any) -> None:
            await asyncio.sleep(chance.random() ** 2 * 2)
            await what(running, allocation, attachment)

        await asyncio.gather(*(later(what) for what in chance.sample(RACES, chance.randrange(1, 5))))
        machine, stored = running.world.machine("n1"), holds(running.world, "data")
        machine.mend()
        machine.up, stored.used_bytes = True, 0
        await running.until(lambda: running.state("node", "n1") in ("ready", "quarantined"))
        if running.state("allocation", allocation) == "active":
            await running.release(allocation, "tidy")
        async with asyncio.timeout(300):
            await _tidy(running, allocation, attachment)
        await running.until(lambda: not running.body("namespace", "data").get("flag"))
        await running.quiet()

    world = play(tell, unmount_tries=2)
    assert access_of(world) == []
    assert not world.machine("n1").mounts.mounted
