"""SIGKILL at each step boundary: what was intended is resumed or undone, what is done is done once."""

import asyncio
from typing import Any

import pytest

from tests.acceptance.machine import CUSTOMER_KEY, Machine, user_of
from tests.acceptance.records import all_is_well, cases, ended_run, events, meters, notifications, run_of, runs
from tests.acceptance.world import NOTIFICATIONS, World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Set-ups are broken on purpose, one after the other on the same machine: that is not what is tried here.
CONFIG = "[timing]\nactivation_tries = 20\nactivation_backoff_ms = [100, 100]\nsetup_fail_limit = 1000\n"
HOLD_S = 0.5  # how long the machine holds the step at which the runtime is killed


async def step_is(world: World, entity: str, name: str, state: str) -> dict[str, Any]:
    """Wait, closely, until the entity has a step of that name in that state."""

    async def check() -> Any:
        query = "SELECT * FROM public_v1.step WHERE entity = $1 AND name = $2 AND state = $3"
        return await world.rows(query, entity, name, state)

    found = await until(check, f"{name} of {entity} is {state}", pause_s=0.002)
    row: dict[str, Any] = found[0]
    return row


async def killed_and_back(world: World) -> None:
    """SIGKILL now; the runtime is started again on what it left."""
    world.kill()
    await world.restart()


async def converged(world: World, machine: Machine, allocation_id: str, users: list[str]) -> None:
    """Nothing is left under way, the machine holds who it should, every event went out once and in order."""

    async def at_rest() -> bool:
        steps = await world.rows("SELECT * FROM public_v1.step WHERE state = 'intended'")
        waiting = await world.rows("SELECT * FROM public_v1.notification WHERE state = 'pending'")
        return not steps and not waiting

    await until(at_rest, "everything is at rest")
    assert machine.users == users
    await events(world, f"allocation:{allocation_id}")
    for row in await notifications(world, f"allocation:{allocation_id}"):
        assert row["state"] == "sent"
        copies = [m for m in await world.stored(NOTIFICATIONS) if m["msg_id"] == row["notification_id"]]
        assert len(copies) == 1
    assert len(await meters(world, allocation_id)) <= 1
    verified = await world.ok("ops.audit.verify", {})
    assert verified["valid"], verified
    await all_is_well(world)


async def let_go(world: World, machine: Machine, allocation_id: str) -> None:
    """The customer leaves; the node is free and clean again."""
    accepted = (await world.release(allocation_id))["accepted_us"]
    await world.cleaned(allocation_id)
    (meter,) = await meters(world, allocation_id)
    assert meter["stopped_us"] == accepted
    await converged(world, machine, allocation_id, [])
    node = await world.node(machine.node_id)
    assert (node["state"], node["allocated_to"], node["reserved_by"], node["dirty"]) == ("ready", None, None, False)


async def test_killed_while_a_node_is_probed_it_becomes_ready_all_the_same(world: World) -> None:
    machine = await world.add_machine(ready=False)
    await killed_and_back(world)
    await world.node_is(machine.node_id, "ready")
    await machine.stop()


@pytest.mark.parametrize("phase", ["intended", "done"])
@pytest.mark.parametrize("op", ["user-create", "key-install"])
async def test_killed_at_a_step_of_the_set_up_the_allocation_becomes_active(
    world: World, machine: Machine, op: str, phase: str
) -> None:
    # given a set-up at the boundary
    later = {"user-create": "key-install", "key-install": ""}[op]
    held = op if phase == "intended" else later
    if held:
        machine.fault(held, "delay", seconds=HOLD_S)
    allocation_id = await world.request(node_id=machine.node_id)
    await step_is(world, f"allocation:{allocation_id}", f"ssh.{op}", phase)
    attempt = (await world.allocation(allocation_id))["attempt_id"]
    # when
    await killed_and_back(world)
    # then the same attempt goes on to its end, and nothing was undone
    row = await world.allocation_is(allocation_id, "active")
    assert row["attempt_id"] == attempt
    assert {call.attempt for call in machine.calls(allocation_id)} == {attempt}
    assert await machine.lets_in(allocation_id)
    assert await runs(world, f"allocation:{allocation_id}") == []
    await converged(world, machine, allocation_id, [user_of(allocation_id)])
    await let_go(world, machine, allocation_id)


async def test_killed_while_the_user_is_made_and_then_out_of_reach_the_user_is_owed_and_not_forgotten(
    world: World, machine: Machine
) -> None:
    # given a user that the node makes while nobody listens any more, and a node that is out of reach at the restart
    machine.fault("user-create", "delay", seconds=HOLD_S)
    allocation_id = await world.request(node_id=machine.node_id)
    entity = f"allocation:{allocation_id}"

    async def made() -> bool:
        return bool(machine.users)

    await step_is(world, entity, "ssh.user-create", "intended")
    await asyncio.sleep(HOLD_S / 5)  # the command is on the node
    world.kill()
    await until(made, "the user is made")
    await machine.ssh.stop()
    # when the resumed step cannot even connect
    await world.restart()
    await world.allocation_is(allocation_id, "failed")
    # then "it did not run" is not believed: the removal is owed, and nobody gets the node
    assert (await world.allocation(allocation_id))["cleanup_pending"]
    assert (await world.node(machine.node_id))["dirty"]

    async def exhausted() -> bool:
        return bool(await cases(world, entity))

    await until(exhausted, "the case is open")
    await machine.ssh.start()
    await world.ok("ops.cleanup.retry", {"allocation_id": allocation_id, "reason": "it is back"})
    await world.cleaned(allocation_id)
    await world.node_is(machine.node_id, "ready")
    await converged(world, machine, allocation_id, [])


@pytest.mark.parametrize("phase", ["failed", "done"])
async def test_killed_at_its_activation_the_meter_runs_once(world: World, machine: Machine, phase: str) -> None:
    # given an activation that the database refuses under this runtime's epoch, or that has just been committed
    if phase == "failed":
        await world.sql.execute(
            "CREATE FUNCTION no_activation() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'no activation today'; END $$"
        )
        epoch = (await world.one("SELECT max(epoch) AS epoch FROM public_v1.audit_log"))["epoch"]
        await world.sql.execute(
            "CREATE TRIGGER no_activation BEFORE INSERT OR UPDATE ON allocations FOR EACH ROW WHEN ("
            f"NEW.state = 'active' AND current_setting('amends.epoch')::bigint = {epoch}"
            ") EXECUTE FUNCTION no_activation()"
        )
    allocation_id = await world.request(node_id=machine.node_id)
    await step_is(world, f"allocation:{allocation_id}", "activation", phase)
    # when
    await killed_and_back(world)
    await world.sql.execute("DROP FUNCTION IF EXISTS no_activation() CASCADE")
    # then
    await world.allocation_is(allocation_id, "active")
    if phase == "failed":
        run = await ended_run(world, f"allocation:{allocation_id}", "R03")
        assert (run.shape(), run.outcome, run.kinds()[-1]) == ([], "recovered", "retry·success")
    assert [meter["state"] for meter in await meters(world, allocation_id)] == ["accruing"]
    await converged(world, machine, allocation_id, [user_of(allocation_id)])
    await let_go(world, machine, allocation_id)


@pytest.mark.parametrize("phase", ["intended", "done"])
@pytest.mark.parametrize("op", ["user-lock", "user-remove"])
async def test_killed_at_a_step_of_the_release_the_node_is_cleaned(
    world: World, machine: Machine, op: str, phase: str
) -> None:
    # given a release at the boundary
    allocation_id = await world.rent(node_id=machine.node_id)
    held = op if phase == "intended" else {"user-lock": "user-remove", "user-remove": ""}[op]
    if held:
        machine.fault(held, "delay", seconds=HOLD_S)
    accepted = (await world.release(allocation_id))["accepted_us"]
    await step_is(world, f"allocation:{allocation_id}", f"ssh.{op}", phase)
    # when
    await killed_and_back(world)
    # then
    row = await world.cleaned(allocation_id)
    assert (row["state"], row["cleanup_attempts"]) == ("released", 1)
    (meter,) = await meters(world, allocation_id)
    assert (meter["stopped_us"], meter["stop_cause"]) == (accepted, "release")
    assert await runs(world, f"allocation:{allocation_id}") == []
    await converged(world, machine, allocation_id, [])


@pytest.mark.parametrize("phase", ["intended", "done"])
async def test_killed_at_the_publish_of_a_notification_it_is_sent_once(
    world: World, machine: Machine, phase: str
) -> None:
    # given a notification that waits for its stream, or has just been acknowledged
    allocation_id = await world.request(node_labels={"zone": "nowhere"})
    if phase == "intended":
        await world.delete_stream(NOTIFICATIONS)
    await world.release(allocation_id)
    (told,) = await notifications(world, f"allocation:{allocation_id}")
    entity = f"notification:{told['notification_id']}"
    await step_is(world, entity, "notification.publish", "failed" if phase == "intended" else phase)
    # when; the start makes the missing stream again
    await killed_and_back(world)
    # then
    await converged(world, machine, allocation_id, [])


@pytest.mark.parametrize("phase", ["intended", "done"])
async def test_killed_in_the_middle_of_an_undo_it_is_finished_and_recorded_once(
    world: World, machine: Machine, phase: str
) -> None:
    # given a set-up that failed, at its undo
    machine.fault("key-install", "exit")
    if phase == "intended":
        machine.fault("user-remove", "delay", seconds=HOLD_S)
    allocation_id = await world.request(node_id=machine.node_id)
    entity = f"allocation:{allocation_id}"
    await step_is(world, entity, "ssh.user-remove", phase)
    # when
    await killed_and_back(world)
    # then
    row = await world.cleaned(allocation_id)
    assert (row["state"], row["failure_code"]) == ("failed", "ssh_step_failed")
    run = await ended_run(world, entity, "R02")
    assert run.shape() == [
        f"reverse·side_effect·node:{machine.node_id}/user:{user_of(allocation_id)}·success",
        f"rollback·state_change·node:{machine.node_id}·success",
    ]
    assert run.outcome == "recovered"
    await converged(world, machine, allocation_id, [])


async def test_killed_while_a_cleanup_is_owed_its_run_goes_on_where_it_stood(world: World, machine: Machine) -> None:
    # given a removal that failed once and is under way again
    allocation_id = await world.rent(node_id=machine.node_id)
    entity = f"allocation:{allocation_id}"
    machine.fault("user-remove", "exit")
    machine.fault("user-remove", "delay", seconds=HOLD_S)
    await world.release(allocation_id)
    await step_is(world, entity, "ssh.user-remove", "failed")
    before = await run_of(world, entity, "R04")
    assert before.outcome == "degraded"
    # when
    await killed_and_back(world)
    # then the same run ends well, its numbers without a gap
    row = await world.cleaned(allocation_id)
    assert row["cleanup_attempts"] == 2
    run = await ended_run(world, entity, "R04")
    assert run.row["recovery_id"] == before.row["recovery_id"]
    assert [line.rpartition("·")[2] for line in run.shape()] == ["partial", "success"]
    assert run.supersedes() == [None, 0]
    await converged(world, machine, allocation_id, [])


async def test_killed_again_and_again_during_one_undo_it_is_undone_once(world: World, machine: Machine) -> None:
    # given an undo that is never let through
    machine.fault("key-install", "exit")
    allocation_id = await world.request(node_id=machine.node_id)
    entity = f"allocation:{allocation_id}"
    for _ in range(3):
        machine.fault("user-remove", "delay", seconds=30)
        await step_is(world, entity, "ssh.user-remove", "intended")
        await killed_and_back(world)
    # when it is
    machine.ssh.faults.clear()
    # then
    await world.cleaned(allocation_id)
    run = await ended_run(world, entity, "R02")
    reversed_well = [line for line in run.shape() if line.startswith("reverse") and line.endswith("success")]
    assert len(reversed_well) == 1
    await converged(world, machine, allocation_id, [])


async def test_killed_while_a_case_is_open_an_operator_settles_it_afterwards(world: World, machine: Machine) -> None:
    # given an exhausted cleanup
    allocation_id = await world.rent(node_id=machine.node_id)
    machine.fault("user-remove", "exit", times=3)
    await world.release(allocation_id)
    await world.node_is(machine.node_id, "quarantined")
    # when
    await killed_and_back(world)
    # then what stood, stands
    row = await world.allocation(allocation_id)
    assert (row["cleanup_pending"], row["cleanup_attempts"]) == (True, 3)
    assert [case["state"] for case in await cases(world, f"allocation:{allocation_id}")] == ["open"]
    assert (await world.node(machine.node_id))["dirty"]
    await world.ok("ops.cleanup.retry", {"allocation_id": allocation_id, "reason": "after the crash"})
    await world.cleaned(allocation_id)
    await world.node_is(machine.node_id, "ready")
    await converged(world, machine, allocation_id, [])


async def test_killed_with_a_request_unanswered_the_same_key_gets_its_one_allocation(
    world: World, machine: Machine
) -> None:
    # given requests that may or may not have been committed when the runtime was killed
    keys = [world.new_key() for _ in range(20)]
    data = {
        "account_id": "acme", "ssh_public_key": CUSTOMER_KEY, "rate_uminor_per_hour": 1, "node_labels": {"a": "b"},
    }  # fmt: skip
    asking = [
        asyncio.create_task(world.ask_until("cmd.allocation.request", {**data, "external_ref": key}, key=key))
        for key in keys
    ]
    while sum(task.done() for task in asking) < 3:
        await asyncio.sleep(0.001)
    # when
    await killed_and_back(world)
    # then each key has one allocation
    replies = [await task for task in asking]
    assert all(reply["ok"] for reply in replies)
    for key, reply in zip(keys, replies, strict=True):
        row = await world.one("SELECT allocation_id FROM public_v1.allocation WHERE external_ref = $1", key)
        assert row["allocation_id"] == reply["data"]["allocation"]["allocation_id"]
        await world.release(row["allocation_id"])
