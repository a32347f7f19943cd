"""One row that a hand has spoilt: over a kill and a start it holds its own rental, and nobody else."""

import json
from typing import Any

import pytest

from tests.acceptance.console import settle
from tests.acceptance.machine import Machine
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
BODY = "SELECT body FROM allocations WHERE allocation_id = $1"
EDIT = "UPDATE allocations SET body = $2 WHERE allocation_id = $1"


async def edited(world: World, allocation_id: str, body: dict[str, Any]) -> None:
    """What an owner can do past every guard."""
    session = await world.superuser()
    await session.execute("SET session_replication_role = replica")
    await session.execute(EDIT, allocation_id, body)
    await session.close()


async def test_a_spoilt_rental_waits_alone_over_a_start_and_goes_on_once_it_is_mended(
    world: World, machine: Machine
) -> None:
    # given a rental whose row says nothing that can be made out, and a runtime that is killed and started on it
    spoilt = await world.rent(node_id=machine.node_id)
    (row,) = await world.sql.fetch(BODY, spoilt)
    body: dict[str, Any] = row["body"]
    await edited(world, spoilt, {key: value for key, value in body.items() if key != "account_id"})
    world.kill()
    await world.restart()
    # then others are served from their request to their end
    other = await world.add_machine()
    second = await world.rent(node_id=other.node_id)
    await world.release(second)
    await world.cleaned(second)
    # and it waits, with one case that says why
    refused = await world.refused("cmd.allocation.release", {"allocation_id": spoilt}, "illegal_transition")
    assert "account_id" in refused["message"]

    async def opened() -> Any:
        found = await world.rows("SELECT * FROM public_v1.ops_case WHERE target_ref = $1", f"allocation:{spoilt}")
        return found or None

    (case,) = await until(opened, "a case is open")
    assert (case["kind"], case["state"]) == ("actor_quarantined", "open")
    assert "account_id" in json.dumps(case["evidence"])
    # what is not mended is not believed to be
    resolve = {"case_id": case["case_id"], "reason": "mended"}
    await world.refused("ops.case.resolve", resolve, "illegal_transition")
    # when its row is put right and the case resolved, then it goes on
    await edited(world, spoilt, body)
    await settle(world, "actor_quarantined", f"allocation:{spoilt}", "ops.case.resolve")
    await world.release(spoilt)
    await world.cleaned(spoilt)
    await other.stop()
