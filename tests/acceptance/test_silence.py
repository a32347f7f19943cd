"""Silence, restarts and wrong keys outside the set-up: what heartbeats and SSH show of a node is believed."""

import asyncio
from typing import Any

import pytest

from tests.acceptance.machine import Machine
from tests.acceptance.records import cases
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def about(machine: Machine, reason: str = "a test", **more: Any) -> dict[str, Any]:
    """The body of an operator's command on the node."""
    return {"node_id": machine.node_id, "reason": reason, **more}


async def test_a_node_that_is_silent_when_it_is_returned_to_service_is_suspected(
    world: World, machine: Machine
) -> None:
    # given a node that fell silent in quarantine; its agent still answers
    await world.ok("ops.node.quarantine", about(machine))
    machine.beating = False
    await asyncio.sleep(1.0)  # longer than suspect_after_ms
    # when
    await world.ok("ops.node.return_to_service", about(machine))
    # then
    await world.node_is(machine.node_id, "suspect")
    machine.beating = True
    await world.node_is(machine.node_id, "ready")


async def test_a_reboot_without_a_customer_is_no_reason_to_fail_the_next_one(world: World, machine: Machine) -> None:
    # given a machine that restarts while nobody has it
    machine.boot_id = "restarted"

    async def stored() -> bool:
        return bool((await world.node(machine.node_id))["boot_id"] == "restarted")

    await until(stored, "the new boot id is stored")
    # when the next customer's set-up sees a gap in the heartbeats, of the same boot
    machine.fault("key-install", "delay", seconds=1.5)
    second = await world.request(node_id=machine.node_id)
    await world.allocation_is(second, "provisioning")
    await machine.fall_silent()
    machine.beating = True
    # then nothing is lost
    await world.allocation_is(second, "active")
    assert (await world.node(machine.node_id))["epoch"] == 1
    await world.release(second)
    await world.cleaned(second)


async def test_another_host_key_at_a_cleanup_quarantines_the_node_for_it(world: World, machine: Machine) -> None:
    allocation_id = await world.rent(node_id=machine.node_id)
    await machine.ssh.change_host_key()
    await world.release(allocation_id)
    await world.node_is(machine.node_id, "quarantined")

    async def known() -> bool:
        return "host_key_mismatch" in (await world.node(machine.node_id))["quarantine_reasons"]

    await until(known, "the reason is known")
    assert "host_key_mismatch" in [case["kind"] for case in await cases(world, f"node:{machine.node_id}")]

    async def exhausted() -> bool:
        return bool(await cases(world, f"allocation:{allocation_id}"))

    await until(exhausted, "the cleanup is left to an operator")
    # when an operator says that this is the machine
    ssh = {"host": "127.0.0.1", "port": machine.ssh.port, "host_key": machine.ssh.host_key}
    await world.ok("ops.node.update", about(machine, ssh=ssh))
    await world.ok("ops.cleanup.retry", {"allocation_id": allocation_id, "reason": "the key is right"})
    await world.cleaned(allocation_id)
    await world.ok("ops.node.return_to_service", about(machine, "the key is right"))
    await world.node_is(machine.node_id, "ready")
