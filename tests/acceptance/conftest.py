"""A world per module where its tests can share one, and a machine per test."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.acceptance.machine import Machine
from tests.acceptance.pair import Pair
from tests.acceptance.records import all_is_well
from tests.acceptance.world import World
from tests.directories import scratch


@pytest.fixture(scope="module")
def module_dir() -> Iterator[Path]:
    """A state directory that another account can enter (see `state_dir`), for a whole module."""
    base = scratch("amends acceptance ")
    yield base / "state"
    shutil.rmtree(base)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(request: pytest.FixtureRequest, module_dir: Path) -> AsyncIterator[World]:
    """A running runtime for the module, with the account acme; a module's CONFIG is added to its configuration."""
    module = request.module
    made = World(module_dir, getattr(module, "CONFIG", ""), getattr(module, "WINDOW_US", 0))
    async with made.running() as world:
        await world.account("acme")
        yield world
        await all_is_well(world)
    assert "Traceback" not in world.log_text(), world.log_text()[-5000:]


@pytest_asyncio.fixture(loop_scope="module")
async def machine(world: World) -> AsyncIterator[Machine]:
    """A ready machine that belongs to one test; afterwards everything must be well."""
    machine = await world.add_machine()
    yield machine
    await all_is_well(world)
    await machine.stop()


@pytest.fixture
async def pair(state_dir: Path) -> AsyncIterator[Pair]:
    made = Pair(state_dir)
    await made.start()
    yield made
    await made.stop()
