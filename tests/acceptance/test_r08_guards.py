"""R08 from outside: nobody who lives is declared lost, whatever happens to us; a whole site is held until confirmed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.acceptance.console import settle
from tests.acceptance.machine import Machine
from tests.acceptance.records import all_is_well, cases
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONFIG = '[detector]\ndomain_label = "zone"\n'
OFFLINE_S = 1.5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(world: World) -> AsyncIterator[dict[str, list[Machine]]]:
    """Two zones: five machines and four."""
    zones = {"a": 5, "b": 4}
    made = {zone: [await world.add_machine(zone=zone) for _ in range(count)] for zone, count in zones.items()}
    yield made
    await all_is_well(world)


async def states(world: World, machines: list[Machine]) -> set[str]:
    return {(await world.node(machine.node_id))["state"] for machine in machines}


async def nobody_lost(world: World, allocation_id: str, fleet: dict[str, list[Machine]]) -> None:
    """All machines are ready, at their first epoch, and the rental goes on."""
    machines = [machine for zone in fleet.values() for machine in zone]

    async def ready() -> bool:
        return await states(world, machines) == {"ready"}

    await until(ready, "all are ready again")
    rows = [await world.node(machine.node_id) for machine in machines]
    assert {(row["epoch"], row["flap_count"]) for row in rows} == {(1, 0)}, "not even suspected"
    assert (await world.allocation(allocation_id))["state"] == "active"


async def test_a_runtime_that_was_paused_and_one_whose_broker_died_declare_nobody_lost(
    world: World, fleet: dict[str, list[Machine]]
) -> None:
    allocation_id = await world.rent(node_id=fleet["a"][0].node_id)
    # when it is paused for four times as long as it takes to be lost
    assert world.process is not None
    os.kill(world.process.pid, signal.SIGSTOP)
    await asyncio.sleep(4 * OFFLINE_S)
    os.kill(world.process.pid, signal.SIGCONT)
    await asyncio.sleep(2 * OFFLINE_S)
    await nobody_lost(world, allocation_id, fleet)
    # when its broker is killed
    os.kill(world.nats_pid(), signal.SIGKILL)
    await asyncio.sleep(2 * OFFLINE_S)
    await until(lambda: _linked(world), "connected again")
    await asyncio.sleep(OFFLINE_S)
    await nobody_lost(world, allocation_id, fleet)
    # when a machine dies in truth
    fleet["a"][0].beating = False
    await fleet["a"][0].ssh.stop()
    await world.allocation_is(allocation_id, "failed")
    await fleet["a"][0].ssh.start()
    fleet["a"][0].beating = True
    await world.node_is(fleet["a"][0].node_id, "ready")


async def _linked(world: World) -> bool:
    return world.nats.is_connected


async def test_a_zone_that_is_gone_as_a_whole_is_held_until_an_operator_confirms_it(
    world: World, fleet: dict[str, list[Machine]]
) -> None:
    allocation_id = await world.rent(node_id=fleet["b"][0].node_id)
    # when
    for machine in fleet["b"]:
        machine.beating = False
        await machine.ssh.stop()

    async def held() -> Any:
        return [case for case in await cases(world, "domain:b") if case["state"] == "open"]

    (case,) = await until(held, "a case is open for the zone")
    await asyncio.sleep(3 * OFFLINE_S)
    # then nobody is judged, and whoever asks is told why
    assert (case["kind"], case["commands"]) == ("mass_offline", ["ops.detector.confirm"])
    assert await states(world, fleet["b"]) == {"suspect"}, [await world.node(m.node_id) for m in fleet["b"]]
    assert (await world.allocation(allocation_id))["state"] == "active"
    # when one comes back, and the others are confirmed
    await fleet["b"][1].ssh.start()
    fleet["b"][1].beating = True
    await world.node_is(fleet["b"][1].node_id, "ready")
    await world.refused("ops.detector.confirm", {"reason": "all of it"}, "invalid_request")
    await settle(world, "mass_offline", "domain:b", "ops.detector.confirm")
    # then
    row = await world.allocation_is(allocation_id, "failed")
    assert row["failure_code"] == "node_offline"
    for place in (0, 2, 3):
        await world.node_is(fleet["b"][place].node_id, "offline")
    assert await states(world, [*fleet["a"], fleet["b"][1]]) == {"ready"}

    async def resolved() -> Any:
        return [case for case in await cases(world, "domain:b") if case["state"] == "resolved"]

    await until(resolved, "the hold has ended by itself")
    for place in (0, 2, 3):
        await fleet["b"][place].ssh.start()
        fleet["b"][place].beating = True
        await world.node_is(fleet["b"][place].node_id, "ready")
    await world.cleaned(allocation_id)
