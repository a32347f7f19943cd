"""The walks of ARCHITECTURE.md are what happens: taken in the simulated world, every file on the way is on the page."""

import asyncio
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from supervisors.simulation.world import Running, World
from tests.docs.test_pages import ROOT, WALK

TRACED = tuple(f"{ROOT / folder}/" for folder in ("src/amends", "actors", "supervisors"))
APART = f"{ROOT / 'supervisors' / 'simulation'}/"  # the world itself
Call = tuple[str, str]  # file and function


@contextmanager
def traced(calls: list[Call]) -> Iterator[None]:
    """Every function of ours that is entered meanwhile, coroutines also when they go on."""

    def called(frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(TRACED) and not file.startswith(APART):
            calls.append((str(Path(file).relative_to(ROOT)), frame.f_code.co_name))

    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(None)


def walk(title: str) -> list[Call]:
    """A walk's lines, of those folders that the simulated world has in common with the real one."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = re.split(r"^## |What it cannot see there", text.partition(f"## {title}\n")[2], flags=re.MULTILINE)[0]
    return [line for line in WALK.findall(section) if f"{ROOT / line[0]}".startswith(TRACED)]


def compare(lines: list[Call], calls: list[Call]) -> None:
    """Every file that was entered is on the page, and nothing else; the lines happen one after another."""
    assert len(lines) > 20
    assert {file for file, _ in calls} == {file for file, _ in lines}
    ahead = iter(calls)
    for line in lines:
        assert line in ahead, f"{line} does not come after the lines before it"


async def settled(running: Running) -> None:
    """A machine that can be rented, and nothing under way."""
    await running.account("acme")
    await running.node("n1")
    await running.quiet()


def test_a_changed_heartbeat_takes_the_way_that_is_told() -> None:
    calls: list[Call] = []

    async def story(running: Running) -> None:
        await settled(running)
        with traced(calls):
            running.core.detector.heard_all([("n1", "another boot")])
            while running.body("node", "n1")["boot_id"] != "another boot":
                await asyncio.sleep(0.001)

    assert World(seed=1).run(story)
    compare(walk("A changed heartbeat"), calls)


def test_a_failed_step_takes_the_way_that_is_told() -> None:
    calls: list[Call] = []

    async def story(running: Running) -> None:
        await settled(running)
        with traced(calls):
            allocation = await running.rent("acme", "rent")
            while running.owed():
                await asyncio.sleep(0.001)
        assert running.state("allocation", allocation) == "failed"

    world = World(seed=1)
    world.machine("n1").break_next("key-install", "fail")
    assert world.run(story)
    compare(walk("A failed step"), calls)
