"""Nothing that ends may hang: every part in turn refuses to close, and the process ends all the same and says which."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisors.closing import CLOSE_S, HARD
from tests.acceptance.world import World
from tests.directories import scratch

DRAIN_S = 3.0  # drain_timeout_ms of the acceptance profile
PARTS = (
    "embedded Postgres", "lease", "journal", "NATS connection", "HTTP server and reads", "supervision tree",
)  # fmt: skip
SLACK_S = 4.0  # starts and ends of other processes on the same two cores


@pytest.fixture
def folder() -> Iterator[Path]:
    base = scratch("amends stops ")
    yield base
    shutil.rmtree(base)


class Refusing(World):
    """A runtime of which one part refuses to close."""

    def __init__(self, state_dir: Path, part: str, how: str) -> None:
        super().__init__(state_dir)
        self.command = (str(Path(__file__).with_name("refusing.py")), part, how)

    async def end(self) -> tuple[int, float]:
        """SIGTERM; exit status and seconds until the end."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.terminate()
        try:
            async with asyncio.timeout(60):
                return await self.process.wait(), time.monotonic() - begun
        finally:
            if self.process.returncode is None:
                self.process.kill()


async def ends(folder: Path, part: str, how: str) -> None:
    """Start it, do something, end it."""
    world = Refusing(folder / f"{part} {how}".replace(" ", "-").replace("'", ""), part, how)
    await world.start()
    await world.connect()
    await world.account("acme")
    world.sql.terminate()
    await world.nats.close()
    status, took = await world.end()
    log = world.log_text()
    assert f"opened {part}" in log, "the part is one that the runtime opens"
    assert status == HARD, log[-2000:]
    assert took < DRAIN_S + CLOSE_S + SLACK_S, (part, took)
    last = log.strip().splitlines()[-1]
    assert "did not close in time" in last, log[-2000:]
    assert part in last
    # and nothing was lost: the next runtime on the same state goes on
    after = World(world.state_dir)
    await after.start()
    await after.connect()
    assert await after.rows("SELECT 1 FROM public_v1.account WHERE account_id = 'acme'")
    await after.stop()


@pytest.mark.slow
@pytest.mark.parametrize("parts", [PARTS[:3], PARTS[3:]], ids=["first half", "second half"])
async def test_a_part_that_refuses_to_close_is_named_and_the_process_ends(folder: Path, parts: tuple[str, ...]) -> None:
    await asyncio.gather(*(ends(folder, part, "waits") for part in parts))


@pytest.mark.slow
async def test_a_part_that_stops_the_event_loop_is_named_as_well(folder: Path) -> None:
    await ends(folder, "SSH connections", "blocks")


@pytest.mark.slow
@pytest.mark.parametrize("which", ["postgres", "nats"])
async def test_a_server_that_stands_still_does_not_keep_the_runtime(folder: Path, which: str) -> None:
    world = World(folder / "state")
    await world.start()
    await world.connect()
    world.sql.terminate()
    await world.nats.close()
    pid = world.postgres_pid() if which == "postgres" else world.nats_pid()
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert world.process is not None
    world.process.terminate()
    async with asyncio.timeout(60):
        await world.process.wait()
    assert time.monotonic() - begun < DRAIN_S + CLOSE_S + SLACK_S
    after = World(folder / "state")
    await after.start()
    await after.stop()
