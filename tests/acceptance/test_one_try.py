"""Budgets of a single try, and what is left to a person: each row still ends as the matrix says, by commands alone."""

from typing import Any

import pytest

from tests.acceptance.console import settle
from tests.acceptance.machine import Machine, user_of
from tests.acceptance.records import audit, cases, ended_run, run_of
from tests.acceptance.test_r03_activation import refusing_activation
from tests.acceptance.world import NOTIFICATIONS, World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = "[timing]\ncleanup_tries = 1\nactivation_tries = 1\nnotification_tries = 1\n"


def user_ref(machine: Machine, allocation_id: str) -> str:
    return f"node:{machine.node_id}/user:{user_of(allocation_id)}"


async def settled(world: World, machine: Machine, allocation_id: str, entity: str) -> None:
    """The case is open; its command settles it, and its story in the audit is whole."""

    async def opened() -> list[dict[str, Any]]:
        return await cases(world, entity)

    (case,) = await until(opened, "the case is open")
    assert (case["kind"], case["state"]) == ("cleanup_exhausted", "open")
    await world.node_is(machine.node_id, "quarantined")
    await settle(world, "cleanup_exhausted", entity, "ops.cleanup.retry", reason="mended")
    await world.cleaned(allocation_id)
    await world.node_is(machine.node_id, "ready")
    story = await world.rows(
        "SELECT action, from_state, to_state, reason FROM public_v1.audit_log WHERE target_ref = $1 ORDER BY seq",
        f"case:{case['case_id']}",
    )
    assert [(row["action"], row["from_state"], row["to_state"]) for row in story] == [
        ("case.open", None, "open"), ("case.retrying", "open", "retrying"), ("case.resolved", "retrying", "resolved"),
    ]  # fmt: skip
    assert story[1]["reason"] == "mended"
    assert machine.users == []


async def test_an_activation_with_one_try_and_a_removal_with_one_try(world: World, machine: Machine) -> None:
    machine.fault("user-remove", "exit")
    async with refusing_activation(world):
        allocation_id = await world.request(node_id=machine.node_id)
        await world.allocation_is(allocation_id, "failed")
    entity = f"allocation:{allocation_id}"
    run = await ended_run(world, entity, "R03")
    user = user_ref(machine, allocation_id)
    assert run.shape() == [f"compensate·side_effect·{user}·success", f"compensate·side_effect·{user}·failure"]
    assert run.outcome == "failed"
    await settled(world, machine, allocation_id, entity)


async def test_a_release_whose_one_removal_fails(world: World, machine: Machine) -> None:
    allocation_id = await world.rent(node_id=machine.node_id)
    machine.fault("user-remove", "exit")
    await world.release(allocation_id)
    entity = f"allocation:{allocation_id}"
    run = await ended_run(world, entity, "R04")
    user = user_ref(machine, allocation_id)
    assert run.shape() == [f"compensate·side_effect·{user}·partial", f"compensate·side_effect·{user}·failure"]
    await settled(world, machine, allocation_id, entity)


async def test_a_set_up_whose_removals_fail_inline_and_once_again(world: World, machine: Machine) -> None:
    machine.fault("key-install", "exit")
    machine.fault("user-remove", "exit", times=2)
    allocation_id = await world.request(node_id=machine.node_id)
    await world.allocation_is(allocation_id, "failed")
    entity = f"allocation:{allocation_id}"
    run = await ended_run(world, entity, "R02")
    assert run.outcome == "failed"
    await settled(world, machine, allocation_id, entity)


async def test_a_notification_with_one_try_is_parked_at_once_and_sent_later(world: World, machine: Machine) -> None:
    async with world.without_stream(NOTIFICATIONS):
        allocation_id = await world.rent(node_id=machine.node_id)
        entity = f"allocation:{allocation_id}"

        async def parked() -> Any:
            return await world.rows(
                "SELECT * FROM public_v1.notification WHERE entity = $1 AND state = 'parked'", entity
            )

        (row,) = await until(parked, "it is parked")
        run = await run_of(world, f"notification:{row['notification_id']}", "R07")
        assert run.kinds() == ["retry·failure", "compensation·partial"]
    run = await ended_run(world, f"notification:{row['notification_id']}", "R07")
    assert run.outcome == "recovered"
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


async def test_what_paused_an_entity_is_resolved_although_it_owes_a_cleanup(world: World, machine: Machine) -> None:
    # given a database that refuses, for good, to take in that a cleanup has ended
    allocation_id = await world.rent(node_id=machine.node_id)
    entity = f"allocation:{allocation_id}"
    await world.sql.execute(
        """CREATE FUNCTION stuck() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN IF NEW.settled_us IS NOT NULL THEN RAISE EXCEPTION 'not today'; END IF; RETURN NEW; END $$;
           CREATE TRIGGER stuck BEFORE INSERT OR UPDATE ON debts FOR EACH ROW EXECUTE FUNCTION stuck()"""
    )
    try:
        await world.release(allocation_id)

        async def opened() -> list[dict[str, Any]]:
            return await cases(world, entity)

        (case,) = await until(opened, "the case is open")
        assert case["kind"] == "actor_quarantined"
    finally:
        await world.sql.execute("DROP TRIGGER stuck ON debts; DROP FUNCTION stuck()")
    # when the cause is gone and the operator says so
    data = await world.ok("ops.case.resolve", {"case_id": case["case_id"], "reason": "the trigger is gone"})
    # then the reply is the case, and what waited goes on by itself
    assert (data["ops_case"]["case_id"], data["ops_case"]["state"]) == (case["case_id"], "resolved")
    assert set(data["ops_case"]) == set(case)
    await world.cleaned(allocation_id)
    assert machine.users == []
    assert await audit(world, f"case:{case['case_id']}") == ["case.open", "case.resolved"]
