"""Storage under races on real parts: each pair of happenings, in both orders, many at once, leaves nothing behind.

TEST_STORAGE_RACES=20 rounds of them instead of one (names that begin with AMENDS_ are for the runtime).
"""

import asyncio
import logging
import os
import random
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.acceptance.records import all_is_well
from tests.acceptance.storage import QUOTA, Provider, Storage, StorageMachine
from tests.acceptance.world import World, until

log = logging.getLogger(__name__)
pytestmark = pytest.mark.asyncio(loop_scope="module")
ROUNDS, MACHINES = int(os.environ.get("TEST_STORAGE_RACES", "1")), 7
# A slow mount (1 s) comes after its time; a machine may be lost as often as it likes, and several at once.
CONFIG = (
    "[timing]\nmount_timeout_ms = 700\nsetup_fail_limit = 100000\nflap_limit = 100000\nmass_offline_min_nodes = 1000\n"
)
GAP_S = 0.05  # between the two
TIDY_S = 90.0


class Racer(Storage[StorageMachine]):
    """A rental and its namespace; all attachments that were ever asked for."""

    async def wants(self) -> None:
        """Attach, whatever comes of it."""
        wish = {
            "allocation_id": self.allocation,
            "namespace_id": self.namespace,
            "mode": "rw",
            "mount_path": "/mnt/data",
        }
        await self.may("cmd.attachment.attach", **wish)

    async def attached(self) -> None:
        await self.attach("attached")

    async def stuck(self) -> None:
        """Attached, and its detach given up."""
        row = await self.attach("attached")
        self.machine.break_mount("unmount", "busy", 3)
        await self.may("cmd.attachment.detach", attachment_id=row["attachment_id"])
        await self.comes_to(row["attachment_id"], "detach_failed")

    async def slow(self) -> None:
        """A mount that is given up, and is about to succeed."""
        self.machine.break_mount("mount", "slow", 1)
        await self.attach("failed")

    async def releases(self) -> None:
        await self.may("cmd.allocation.release", allocation_id=self.allocation)

    async def detaches(self) -> None:
        await self.all("cmd.attachment.detach")

    async def retries(self) -> None:
        """An operator; done twice, two of them."""
        await self.all("ops.attachment.retry_detach", reason="a race")

    async def fills(self) -> None:
        (self.directory / "large").write_bytes(b"x" * 2 * QUOTA)

    async def is_lost(self) -> None:
        """Its machine is silent until that is noticed, and comes back."""
        await self.machine.stop_agent()
        await self.machine.ssh.stop()
        await self.world.node_is(self.machine.node_id, "offline")
        await self.machine.ssh.start()
        await self.machine.start_agent()

    # --- what they need -----------------------------------------------------------------------------------

    async def may(self, subject: str, **data: Any) -> None:
        """It is done, or refused for a reason that the contract has."""
        reply = await self.world.ask_until(subject, data, key=self.world.new_key())
        refused = "" if reply["ok"] else reply["error"]["code"]
        assert refused in ("", "illegal_transition", "allocation_not_active", "not_found"), reply

    async def attachments(self) -> list[dict[str, Any]]:
        query = "SELECT * FROM public_v1.attachment WHERE namespace_id = $1"
        return await self.world.rows(query, self.namespace)

    async def all(self, subject: str, **more: Any) -> None:
        """A word to each attachment that is there."""
        for row in await self.attachments():
            await self.may(subject, attachment_id=row["attachment_id"], **more)

    async def tidies(self) -> None:
        """All breaks end, the customer leaves, an operator has tried again what was given up, until nothing is left."""
        self.machine.mount_faults.mend()
        (self.directory / "large").unlink(missing_ok=True)
        await self.releases()

        async def over() -> bool:
            left = [each for each in await self.attachments() if each["state"] not in ("detached", "failed")]
            owed = await self.world.rows("SELECT 1 FROM public_v1.debt WHERE node_id = $1", self.machine.node_id)
            if left or owed:
                await self.retries()
            ready = (await self.world.node(self.machine.node_id))["state"] == "ready"
            return ready and not left and not owed

        await until(over, f"all of {self.allocation} is tidied up", TIDY_S, 0.3)
        await self.world.cleaned(self.allocation)

    async def nothing_is_left(self) -> None:
        """Neither access nor mount, and what the namespace holds is as it was."""
        assert await self.grants("granted", "intended", "drift") == 0
        assert not await self.provider.lets_in(self.namespace)
        assert not self.machine.at("/mnt/data").is_symlink()
        assert self.untouched()
        assert sorted(each.name for each in self.directory.iterdir()) == ["letter"]


Happening = Callable[[Racer], Awaitable[None]]
RACES: dict[str, tuple[Happening | None, Happening, Happening]] = {
    "attach/release": (None, Racer.wants, Racer.releases),
    "attach/node loss": (None, Racer.wants, Racer.is_lost),
    "detach/node loss": (Racer.attached, Racer.detaches, Racer.is_lost),
    "late mount success, the path again": (Racer.slow, Racer.wants, Racer.wants),
    "retry_detach/detach": (Racer.stuck, Racer.retries, Racer.detaches),
    "two operators": (Racer.stuck, Racer.retries, Racer.retries),
    "quota block/attach": (None, Racer.fills, Racer.wants),
}


async def race(racer: Racer, name: str, *, backwards: bool, gap_s: float) -> None:
    """Both at nearly the same time; then all is tidied up, and nothing is left."""
    await racer.begin()
    before, *both = RACES[name]
    if before is not None:
        await before(racer)
    first, second = reversed(both) if backwards else both

    async def after() -> None:
        await asyncio.sleep(gap_s)
        await second(racer)

    await asyncio.gather(first(racer), after())
    await racer.tidies()
    await racer.nothing_is_left()


async def racing(world: World, provider: Provider) -> Racer:
    """On a machine of its own."""
    return Racer(world, provider, await world.enlist(StorageMachine(world, world.new_name("r"))))


@pytest.mark.slow
async def test_each_race_in_both_orders_many_at_once_leaves_nothing(world: World) -> None:
    seed = int(os.environ.get("AMENDS_TEST_SEED", "0")) or secrets.randbits(32)
    log.warning("seed %d (AMENDS_TEST_SEED=%d repeats the choices)", seed, seed)
    chance, began = random.Random(seed), time.monotonic()
    provider = Provider(world, world.new_name("nfs"))
    await provider.start()
    racers = [await racing(world, provider) for _ in range(MACHINES)]
    waiting = [(name, backwards) for name in RACES for backwards in (False, True)] * ROUNDS
    chance.shuffle(waiting)
    ran = len(waiting)

    async def one_after_the_other(racer: Racer) -> None:
        while waiting:
            name, backwards = waiting.pop()
            try:
                await race(racer, name, backwards=backwards, gap_s=chance.random() * GAP_S)
            except AssertionError as error:
                error.add_note(f"{name}, {'backwards' if backwards else 'forwards'}: {racer.namespace}")
                raise

    async with asyncio.TaskGroup() as tasks:
        for racer in racers:
            tasks.create_task(one_after_the_other(racer))
    log.warning("%d races in %.0f s", ran, time.monotonic() - began)
    await world.quiet()
    await all_is_well(world)
    assert await world.rows("SELECT * FROM public_v1.recovery_run WHERE ended_at IS NULL") == []
    for racer in racers:
        await racer.machine.stop()
    await provider.stop()
    shutil.rmtree(provider.base)
