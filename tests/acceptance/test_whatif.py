"""What would happen, asked on the real parts, and then done: the same records, amounts and notifications."""

import asyncio
import json
import shutil
from collections import Counter
from typing import Any

import pytest

from tests.acceptance.machine import Machine
from tests.acceptance.money import by_key
from tests.acceptance.records import meters, notifications, runs
from tests.acceptance.storage import Provider, Storage, StorageMachine
from tests.acceptance.world import RATE, World

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEAR = RATE * 20_000
FORCE = "ops.allocation.force_release"
TABLES = ("audit_log", "compensation", "failure", "ledger_entry", "notification", "ops_case", "recovery_run")


async def written(world: World) -> dict[str, int]:
    """How many rows there are of what a forecast speaks of."""
    return {each: await world.sql.fetchval(f"SELECT count(*) FROM public_v1.{each}") for each in TABLES}


async def foretold(world: World, *words: str) -> dict[str, Any]:
    """What the command line says as JSON; nothing was written for it."""
    await world.quiet()
    before = await written(world)
    found: dict[str, Any] = json.loads(await world.amends("whatif", *words, "--json"))
    assert await written(world) == before
    return found


def undone(rows: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    names = ("compensation_type", "compensated_action_type", "target_ref", "outcome")
    return Counter(tuple(row[name] for name in names) for row in rows)


def amounts(forecast: dict[str, Any], meter_id: str) -> dict[str, int]:
    return {entry["idempotency_key"].replace(f":{meter_id}", ""): entry["amount_minor"] for entry in forecast["ledger"]}


async def test_a_loss_that_was_asked_about_comes_to_what_was_said(world: World) -> None:
    provider = Provider(world, world.new_name("nfs"))
    await provider.start()
    machine = await world.enlist(StorageMachine(world, world.new_name("s")))
    storage = Storage(world, provider, machine)
    await storage.begin()
    attached = (await storage.attach())["attachment_id"]
    allocation = f"allocation:{storage.allocation}"
    asked = await foretold(world, "node-loss", machine.node_id)
    # given a node whose agent is silent and whose SSH server is gone
    await machine.stop_agent()
    await machine.ssh.stop()
    forecast = await world.ok("ops.whatif.node_loss", {"node_id": machine.node_id})
    assert undone(forecast["compensations"]) == undone(asked["compensations"])
    # when it is lost
    await world.node_is(machine.node_id, "offline")
    await storage.comes_to(attached, "detached")
    # then the runs, the ledger and the notifications are those
    found = [c for ref in (allocation, f"attachment:{attached}") for run in await runs(world, ref, "R08")
             for c in run.compensations]  # fmt: skip
    assert undone(forecast["compensations"]) == undone(found)
    assert {row["compensated_action_type"] for row in found} == {"state_change", "external_call"}
    (meter,) = await meters(world, storage.allocation)
    assert amounts(forecast, meter["meter_id"]) == await by_key(world, meter["meter_id"])
    told = [(row["entity"], row["kind"]) for row in forecast["notifications"]]
    assert told == [(f"node:{machine.node_id}", "node.offline"), (allocation, "allocation.failed")]
    for entity, kind in told:
        assert kind in [row["kind"] for row in await notifications(world, entity)]
    # and it is not lost twice
    again = await world.amends("whatif", "node-loss", machine.node_id)
    assert "It would be refused: illegal_transition: a node that is offline is not declared lost" in again
    retired = json.loads(await world.amends("whatif", "retire", machine.node_id, "--json"))
    assert retired["refused"]["code"] == "debt_open"
    # it comes back
    await machine.ssh.start()
    await machine.start_agent()
    await world.node_is(machine.node_id, "ready")
    await world.cleaned(storage.allocation)
    await machine.stop()
    await provider.stop()
    shutil.rmtree(provider.base)


async def test_a_forced_release_that_was_asked_about_comes_to_what_was_said(world: World, machine: Machine) -> None:
    allocation_id = await world.rent(node_id=machine.node_id, rate_uminor_per_hour=DEAR)
    await asyncio.sleep(1.2)
    page = await world.amends("whatif", "force-release", allocation_id, "--reason-code", "platform_fault")
    for text in ("Nothing was written", "force_platform_fault", "ssh.user-remove", "allocation.released"):
        assert text in page
    forecast = await foretold(world, "force-release", allocation_id, "--reason-code", "platform_fault")
    assert (await world.allocation(allocation_id))["state"] == "active"
    about = {"allocation_id": allocation_id, "reason_code": "platform_fault", "reason": "the rack is needed"}
    data = await world.ok(FORCE, about)
    await world.cleaned(allocation_id)
    (meter,) = await meters(world, allocation_id)
    (run,) = await runs(world, f"allocation:{allocation_id}", "R09")
    assert undone(forecast["compensations"]) == undone(run.compensations)
    assert list(amounts(forecast, meter["meter_id"])) == list(await by_key(world, meter["meter_id"]))
    assert 0 <= data["accepted_us"] - forecast["as_of_us"] < 60_000_000
    for entry in forecast["ledger"]:
        said = await world.ok("qry.ledger_entry.explain", {"idempotency_key": entry["idempotency_key"]})
        assert len(said["formula"]) == len(entry["formula"])
