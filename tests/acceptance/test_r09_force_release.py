"""R09 from outside: an operator ends a rental; the policy says whether that gives anything back."""

import asyncio
from typing import Any

import pytest

from tests.acceptance.machine import Machine
from tests.acceptance.money import by_key, owed_back
from tests.acceptance.records import audit, ended_run, meters, runs
from tests.acceptance.world import RATE, World

pytestmark = pytest.mark.asyncio(loop_scope="module")
WINDOW_US = 1_000_000
DEAR = RATE * 20_000
FORCE = "ops.allocation.force_release"


def about(allocation_id: str, reason_code: str = "operator_request") -> dict[str, Any]:
    return {"allocation_id": allocation_id, "reason_code": reason_code, "reason": "the rack is needed"}


async def used(world: World, machine: Machine, seconds: float = 1.5) -> str:
    allocation_id = await world.rent(node_id=machine.node_id, rate_uminor_per_hour=DEAR)
    await asyncio.sleep(seconds)
    return allocation_id


@pytest.mark.parametrize("reason_code", ["operator_request", "platform_fault"])
async def test_a_forced_release_stops_the_meter_when_it_is_accepted_and_refunds_by_rule(
    world: World, machine: Machine, reason_code: str
) -> None:
    allocation_id = await used(world, machine)
    # when
    key = world.new_key()
    data = await world.ok(FORCE, about(allocation_id, reason_code), key=key)
    again = await world.ask(FORCE, about(allocation_id, reason_code), key=key)
    # then
    assert again["duplicate"]
    assert again["data"]["accepted_us"] == data["accepted_us"]
    row = await world.cleaned(allocation_id)
    assert (row["state"], row["release_cause"]) == ("released", "force")
    (meter,) = await meters(world, allocation_id)
    assert (meter["stopped_us"], meter["stop_cause"]) == (data["accepted_us"], "force_release")
    found = await by_key(world, meter["meter_id"])
    credits_ = {key: amount for key, amount in found.items() if key.startswith("credit")}
    refund = owed_back(meter, reason_code)
    assert credits_ == ({"credit:force_platform_fault": refund} if refund else {})
    assert bool(refund) == (reason_code == "platform_fault")
    run = await ended_run(world, f"allocation:{allocation_id}", "R09")
    assert (run.row["trigger_type"], run.outcome, run.failures) == ("policy", "recovered", [])
    assert run.shape() == [
        f"cancel·state_change·meter:{meter['meter_id']}·success",
        *(
            f"reverse·state_change·ledger:acme/credit:{meter['meter_id']}:force_platform_fault·success"
            for _ in credits_
        ),
    ]
    assert "billing.credit.evaluated" in await audit(world, f"meter:{meter['meter_id']}")


async def test_one_that_has_ended_is_left_as_it_is(world: World, machine: Machine) -> None:
    allocation_id = await used(world, machine, 0)
    accepted = (await world.release(allocation_id))["accepted_us"]
    row = await world.cleaned(allocation_id)
    (meter,) = await meters(world, allocation_id)
    found = await by_key(world, meter["meter_id"])
    data = await world.ok(FORCE, about(allocation_id, "platform_fault"))
    assert (data["already_terminal"], data["accepted_us"]) == (True, accepted)
    assert await world.allocation(allocation_id) == row
    assert await by_key(world, meter["meter_id"]) == found
    assert await runs(world, f"allocation:{allocation_id}", "R09") == []


async def test_before_there_is_a_meter_it_is_the_way_of_a_release(world: World, machine: Machine) -> None:
    machine.fault("user-create", "delay", seconds=0.5)
    allocation_id = await world.request(node_id=machine.node_id)
    await world.allocation_is(allocation_id, "provisioning")
    await world.ok(FORCE, about(allocation_id))
    row = await world.allocation_is(allocation_id, "failed")
    assert (row["failure_code"], row["release_cause"]) == ("cancelled", "force")
    await world.cleaned(allocation_id)
    assert await meters(world, allocation_id) == []
    assert [run.row["matrix_row"] for run in await runs(world, f"allocation:{allocation_id}")] == ["R02"]


async def test_nobody_but_an_operator_may_force(world: World, machine: Machine) -> None:
    allocation_id = await used(world, machine, 0)
    await world.refused(FORCE, about(allocation_id), "unauthenticated", headers={"Authorization": ""})
    assert (await world.allocation(allocation_id))["state"] == "active"
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


async def test_force_release_and_then_the_node_is_lost_gives_back_what_was_past_its_last_heartbeat(
    world: World, machine: Machine
) -> None:
    allocation_id = await used(world, machine)
    machine.beating = False
    await machine.ssh.stop()
    await asyncio.sleep(0.7)
    data = await world.ok(FORCE, about(allocation_id))
    node = await world.node_is(machine.node_id, "offline")
    await ended_run(world, f"allocation:{allocation_id}", "R08")
    (meter,) = await meters(world, allocation_id)
    assert meter["stopped_us"] == node["last_heartbeat_us"] < data["accepted_us"]
    assert meter["stop_cause"] == "force_release"
    found = await by_key(world, meter["meter_id"])
    assert [key for key in found if key.startswith("credit")] in ([], [f"credit:overrun:{meter['stopped_us']}"])
    await machine.ssh.start()
    machine.beating = True
    await world.node_is(machine.node_id, "ready")
    await world.cleaned(allocation_id)
