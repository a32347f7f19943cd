"""R08 from outside: a node dies, or restarts, under a customer; the money stops with its last sign of life."""

import asyncio
from typing import Any

import pytest

from tests.acceptance.machine import Machine, user_of
from tests.acceptance.money import by_key, cost, owed_back
from tests.acceptance.records import audit, ended_run, events, meters, notifications, run_of, runs
from tests.acceptance.world import RATE, World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
WINDOW_US = 1_000_000
DEAR = RATE * 20_000
CONFIG = "[timing]\ncleanup_tries = 100\n"  # no case of a cleanup is meant here


async def die(machine: Machine) -> None:
    """No heartbeat and no SSH any more."""
    machine.beating = False
    await machine.ssh.stop()


async def come_back(machine: Machine) -> None:
    """Both again, of the same boot."""
    await machine.ssh.start()
    machine.beating = True


async def used(world: World, machine: Machine, seconds: float = 2.2) -> str:
    """A rental that has cost something; windows of it are posted."""
    allocation_id = await world.rent(node_id=machine.node_id, rate_uminor_per_hour=DEAR)
    await asyncio.sleep(seconds)
    return allocation_id


async def test_a_node_that_dies_under_a_customer_costs_him_nothing_after_its_last_heartbeat(
    world: World, machine: Machine
) -> None:
    # given
    allocation_id = await used(world, machine)
    entity, user = f"allocation:{allocation_id}", f"node:{machine.node_id}/user:{user_of(allocation_id)}"
    # when
    await die(machine)
    row = await world.allocation_is(allocation_id, "failed")
    # then the rental has failed, the meter stands at the last heartbeat, and the ledger is the formula's
    assert (row["failure_code"], row["billing_state"], row["cleanup_pending"]) == ("node_offline", "stopped", True)
    node = await world.node_is(machine.node_id, "offline")
    assert (node["epoch"], node["allocated_to"], node["dirty"]) == (2, None, True)
    (meter,) = await meters(world, allocation_id)
    assert (meter["stop_cause"], meter["stopped_us"]) == ("node_offline", node["last_heartbeat_us"])
    found = await by_key(world, meter["meter_id"])
    assert found["credit:node_offline"] == owed_back(meter) == cost(meter, meter["stopped_us"]) > 0
    # and the runs are joined: node, then allocation
    (own,) = await runs(world, entity, "R08")
    ledger = [f"ledger:acme/credit:{meter['meter_id']}:{key}" for key in ("node_offline",)]
    if "overrun" in str(found):
        ledger.insert(0, f"ledger:acme/credit:{meter['meter_id']}:overrun:{meter['stopped_us']}")
    assert own.shape() == [
        f"cancel·state_change·meter:{meter['meter_id']}·success",
        *(f"reverse·state_change·{key}·success" for key in ledger),
    ]
    of_node = await run_of(world, f"node:{machine.node_id}", "R08")
    assert (own.outcome, of_node.outcome) == ("degraded", "degraded")
    (cause,), (effect,) = of_node.failures, own.failures
    assert (cause["propagation_hop"], effect["propagation_hop"]) == (0, 1)
    assert effect["cause_ref"] == f"failure:{cause['failure_id']}"
    assert own.row["original_trace_id"] == of_node.row["original_trace_id"]
    assert cause["failure_type"] == "timeout"
    # and who has to know it knows it
    told = [n["kind"] for n in await notifications(world, entity) if n["audience"] == "account"]
    assert told == ["allocation.active", "allocation.failed"]
    assert [n["kind"] for n in await notifications(world, f"node:{machine.node_id}")] == ["node.offline"]
    body = [m["body"] for m in await world.stored("AMENDS_NTF") if m["subject"].endswith("allocation.failed")][-1]
    assert body["stopped_us"] == meter["stopped_us"]
    assert body["debited_minor"] == sum(v for k, v in found.items() if k.startswith("debit"))
    assert body["credited_minor"] == sum(v for k, v in found.items() if k.startswith("credit"))
    assert (body["rule_id"], body["currency"]) == ("node_offline", "usd")
    assert "billing.credit.evaluated" in await audit(world, f"meter:{meter['meter_id']}")
    posted = [m["body"] for m in await world.stored("AMENDS_EVT") if m["subject"].endswith("acme.ledger_posted")]
    assert ledger[-1].partition("/")[2] in [event["data"]["idempotency_key"] for event in posted]
    # when it is back
    await come_back(machine)
    await world.node_is(machine.node_id, "ready")
    # then the user is gone before anybody else comes, and nothing of the rental has changed
    assert machine.users == []
    assert await by_key(world, meter["meter_id"]) == found
    row = await world.cleaned(allocation_id)
    assert row["state"] == "failed"
    of_node = await ended_run(world, f"node:{machine.node_id}", "R08")
    assert of_node.shape() == [f"reverse·side_effect·{user}·success"]
    assert (await ended_run(world, entity, "R08")).outcome == of_node.outcome == "recovered"
    seen = [name for name in await events(world, f"node:{machine.node_id}") if name != "registered"]
    assert seen == ["ready", "suspect", "offline", "quarantined", "ready"]
    found = await world.ok("ops.trace.verify", {})
    assert found["valid"], found["differences"]


async def test_a_gap_in_the_heartbeats_is_a_suspicion_and_no_more(world: World, machine: Machine) -> None:
    allocation_id = await used(world, machine, 0.2)
    await machine.fall_silent()
    machine.beating = True
    await world.node_is(machine.node_id, "ready")
    await asyncio.sleep(2)
    assert (await world.allocation(allocation_id))["state"] == "active"
    assert (await world.node(machine.node_id))["epoch"] == 1
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


async def test_a_node_whose_ssh_server_answers_is_not_declared_lost(world: World, machine: Machine) -> None:
    allocation_id = await used(world, machine, 0.2)
    await machine.fall_silent()
    await asyncio.sleep(4)
    assert (await world.node(machine.node_id))["state"] == "suspect"
    assert (await world.allocation(allocation_id))["state"] == "active"
    machine.beating = True
    await world.node_is(machine.node_id, "ready")
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


async def test_a_machine_that_restarts_ends_its_rental_at_the_last_heartbeat_of_the_old_boot(
    world: World, machine: Machine
) -> None:
    # given
    allocation_id = await used(world, machine)
    machine.beating = False
    await asyncio.sleep(0.3)
    last = (await world.node(machine.node_id))["last_heartbeat_us"]
    # when
    machine.boot_id, machine.beating = "another", True
    # then
    row = await world.allocation_is(allocation_id, "failed")
    assert row["failure_code"] == "node_rebooted"
    (meter,) = await meters(world, allocation_id)
    assert meter["stop_cause"] == "node_rebooted"
    assert 0 <= meter["stopped_us"] - last <= 300_000
    await world.node_is(machine.node_id, "ready")
    assert machine.users == []
    node = await world.node(machine.node_id)
    assert (node["epoch"], node["boot_id"], node["quarantine_reasons"]) == (2, "another", [])


async def test_a_node_lost_during_the_set_up_leaves_no_meter_and_its_user_is_removed_when_it_is_back(
    world: World, machine: Machine
) -> None:
    # given a set-up that hangs
    machine.fault("key-install", "delay", seconds=30)
    allocation_id = await world.request(node_id=machine.node_id)
    await world.allocation_is(allocation_id, "provisioning")
    await until(lambda: _called(machine, "user-create"), "the user is there")
    # when
    machine.ssh.faults.clear()
    await die(machine)
    # then
    row = await world.allocation_is(allocation_id, "failed")
    assert row["failure_code"] in ("node_offline", "ssh_step_failed", "ssh_timeout", "ssh_connect_failed")
    assert await meters(world, allocation_id) == []
    await world.node_is(machine.node_id, "offline")
    await come_back(machine)
    await world.node_is(machine.node_id, "ready")
    await world.cleaned(allocation_id)
    assert machine.users == []


async def _called(machine: Machine, op: str) -> Any:
    return op in machine.ops()


async def test_a_loss_that_is_found_after_the_release_lowers_the_stop(world: World, machine: Machine) -> None:
    # given a customer who gives the machine back when it is dead already, which nobody knows yet
    allocation_id = await used(world, machine)
    await die(machine)
    await asyncio.sleep(0.7)
    accepted = (await world.release(allocation_id))["accepted_us"]
    # when the verdict comes
    node = await world.node_is(machine.node_id, "offline")

    async def lowered() -> Any:
        (meter,) = await meters(world, allocation_id)
        return meter if meter["stopped_us"] < accepted else None

    meter = await until(lowered, "the stop is lowered")
    # then he pays until the last heartbeat, and the release goes its way
    assert meter["stopped_us"] == node["last_heartbeat_us"]
    assert (await world.allocation_is(allocation_id, "released"))["release_cause"] == "user"
    run = await ended_run(world, f"allocation:{allocation_id}", "R08")
    assert run.shape()[0] == f"cancel·state_change·meter:{meter['meter_id']}·success"
    assert not any(key.endswith("node_offline") for key in await by_key(world, meter["meter_id"]))
    await come_back(machine)
    await world.node_is(machine.node_id, "ready")
    await world.cleaned(allocation_id)


async def test_a_lost_node_that_never_comes_back_is_retired_and_what_it_owes_is_cancelled(
    world: World, machine: Machine
) -> None:
    allocation_id = await used(world, machine, 0.2)
    await die(machine)
    await world.node_is(machine.node_id, "offline")
    await world.allocation_is(allocation_id, "failed")
    await world.refused("ops.node.retire", {"node_id": machine.node_id, "reason": "burned"}, "debt_open")
    await world.ok("ops.node.retire", {"node_id": machine.node_id, "reason": "burned", "acknowledge_lost": True})
    await world.node_is(machine.node_id, "retired")
    await world.cleaned(allocation_id)
    assert (await ended_run(world, f"allocation:{allocation_id}", "R08")).outcome == "recovered"
    assert (await ended_run(world, f"node:{machine.node_id}", "R08")).outcome == "recovered"
