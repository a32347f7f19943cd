"""The door from outside: how a customer gets in, that one is kept out, and what an operator's word does at once."""

from typing import Any

import asyncssh
import pytest

from tests.acceptance.console import settle
from tests.acceptance.machine import CUSTOMER, Machine, user_of
from tests.acceptance.records import audit, cases, events, meters, notifications
from tests.acceptance.world import NOTIFICATIONS, World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Probes again within half a second; a cleanup's next try is an hour away unless somebody asks for it.
CONFIG = "[timing]\nreprobe_ms = 500\ncleanup_backoff_ms = [3600000, 3600000]\n"
UNKNOWN_STEP = """INSERT INTO step (step_id, entity, name, attempt, state, idempotency_key, target, args, undo,
    trace_id, parent_span_id, started_us, code, message, epoch, jseq)
VALUES ($1, $2, 'ssh.levitate', 1, 'intended', $1, 'node:none', '{}', '{}', repeat('a', 32), repeat('b', 16), 1, '', '',
    1, 1)"""


async def logs_in(access: dict[str, Any]) -> bool:
    """Whether the customer gets in with its key and nothing but what it was told."""
    async with asyncssh.connect(
        access["host"], access["port"], username=access["user"], client_keys=[CUSTOMER],
        known_hosts=([asyncssh.import_public_key(access["host_key"])], [], []), config=None, agent_path=None,
    ) as connection:  # fmt: skip
        key = connection.get_server_host_key()
        assert key is not None
        return bool(key.get_fingerprint("sha256") == access["fingerprint"])


async def open_case(world: World, target_ref: str, kind: str) -> dict[str, Any]:
    """Wait for it."""

    async def check() -> Any:
        return [case for case in await cases(world, target_ref) if case["kind"] == kind and case["state"] == "open"]

    (case,) = await until(check, f"the case {kind} is open")
    return dict(case)


async def test_a_customer_logs_in_with_what_every_answer_about_its_rental_says(world: World, machine: Machine) -> None:
    allocation_id = await world.rent(node_id=machine.node_id)
    # the row, in SQL and over the API
    row = await world.allocation(allocation_id)
    access = row["access"]
    assert await logs_in(access)
    assert (await world.ok("qry.allocation.get", {"id": allocation_id}))["access"] == access
    listed = await world.ok("qry.allocation.list", {"account_id": "acme", "state": "active"})
    assert [item["access"] for item in listed["items"] if item["allocation_id"] == allocation_id] == [access]
    # its event and its notification
    await events(world, f"allocation:{allocation_id}")
    await world.quiet()
    stored = await world.stored("AMENDS_EVT")
    assert [m["body"]["data"]["access"] for m in stored if m["subject"].endswith(f"{allocation_id}.active")] == [access]
    told = [
        m["body"] for m in await world.stored(NOTIFICATIONS) if m["body"]["entity"] == f"allocation:{allocation_id}"
    ]
    assert [(body["kind"], body["access"]) for body in told] == [("allocation.active", access)]
    # the command line, with a line to copy
    shown = (await world.amends("allocation", "show", allocation_id)).splitlines()
    assert f"ssh -p {access['port']} {user_of(allocation_id)}@127.0.0.1" in shown
    assert f"[127.0.0.1]:{access['port']} {access['host_key']}" in shown
    # and it is told when the machine moves
    ssh = {"host": "localhost", "port": machine.ssh.port, "host_key": machine.ssh.host_key}
    await world.ok("ops.node.update", {"node_id": machine.node_id, "ssh": ssh, "reason": "it has a name now"})

    async def moved() -> Any:
        return (await world.allocation(allocation_id))["access"]["host"] == "localhost"

    await until(moved, "the customer's row names the new address")
    assert await logs_in((await world.allocation(allocation_id))["access"])
    assert [n["kind"] for n in await notifications(world, f"allocation:{allocation_id}")] == ["allocation.active"] * 2
    assert (await world.release(allocation_id))["allocation"]["access"]["host"] == "localhost"
    await world.cleaned(allocation_id)


async def test_a_customer_who_is_not_locked_out_is_a_case_at_once_and_a_retry_is_now(
    world: World, machine: Machine
) -> None:
    # given a customer who cannot be locked out, whose cleanup's next try is far away
    allocation_id = await world.rent(node_id=machine.node_id)
    entity = f"allocation:{allocation_id}"
    machine.fault("user-lock", "exit", times=2, exit_status=74)
    accepted = (await world.release(allocation_id))["accepted_us"]
    case = await open_case(world, entity, "lockout_failed")
    row = await world.allocation_is(allocation_id, "released")
    assert (row["billing_state"], row["cleanup_pending"], case["commands"]) == ("stopped", True, ["ops.cleanup.retry"])
    assert await machine.lets_in(allocation_id)

    async def failed_again() -> Any:
        return (await world.allocation(allocation_id))["cleanup_attempts"] == 1

    await until(failed_again, "the lock has failed once more")
    # then everything says so, and when it is tried again
    said = await world.amends("why", allocation_id)
    assert "lockout_failed" in said
    assert "Next try due" in said
    assert f'amends retry cleanup {allocation_id} --reason "…"' in said
    # when an operator has it tried, then it is tried at once, and the case closes by itself
    await settle(world, "lockout_failed", entity, "ops.cleanup.retry")
    await world.cleaned(allocation_id)
    assert not await machine.lets_in(allocation_id)
    assert [each["state"] for each in await cases(world, entity)] == ["resolved"]
    assert [meter["stopped_us"] for meter in await meters(world, allocation_id)] == [accepted]


async def test_a_node_that_lets_nobody_in_leaves_the_pool_and_is_not_returned_before_it_does(
    world: World, machine: Machine
) -> None:
    # given that some other node works, so that it is not our own trouble
    others = [await world.add_machine(), await world.add_machine()]
    # when root no longer accepts the runtime's key, then the node is taken out before a customer meets it
    await machine.refuse_logins()
    await world.node_is(machine.node_id, "quarantined")
    entity = f"node:{machine.node_id}"
    case = await open_case(world, entity, "setup_failing")
    assert case["evidence"]["code"] == "ssh_auth_failed"
    assert [(await world.node(each.node_id))["state"] for each in others] == ["ready", "ready"]
    # when an operator lets it back though nothing has changed, then it stays, its case open, and why says what failed
    await world.ok("ops.node.return_to_service", {"node_id": machine.node_id, "reason": "I think it is mended"})

    async def said() -> Any:
        (found,) = await cases(world, entity)
        return found["evidence"].get("probe") == "ssh_auth_failed" and found["state"] == "open"

    await until(said, "the case says what the probe found")
    assert (await world.node(machine.node_id))["state"] == "quarantined"
    assert "ssh_auth_failed" in await world.amends("why", machine.node_id)
    # when it is mended, then it is back by itself
    await machine.ssh.stop()
    machine.ssh.refuse_auth = False
    await machine.ssh.start()
    await world.node_is(machine.node_id, "ready")
    assert [each["state"] for each in await cases(world, entity) if each["kind"] == "setup_failing"] == ["resolved"]
    for each in others:
        await world.ok("ops.node.quarantine", {"node_id": each.node_id, "reason": "the end"})
        await world.ok("ops.node.retire", {"node_id": each.node_id, "reason": "the end"})
        await each.stop()


async def test_a_release_while_paused_counts_from_its_instant_also_after_a_restart(
    world: World, machine: Machine
) -> None:
    # given a rental that a step nobody knows pauses at the start
    allocation_id = await world.rent(node_id=machine.node_id)
    entity = f"allocation:{allocation_id}"
    step_id = f"step_{allocation_id.removeprefix('alloc_')}"
    world.planted.add(("step", step_id))
    async with world.sql.transaction():
        await world.sql.execute("SET LOCAL session_replication_role = replica")
        await world.sql.execute(UNKNOWN_STEP, step_id, entity)
    world.kill()
    await world.restart()
    await open_case(world, entity, "unknown_step")
    # when it is released, then that is accepted with its instant, and survives another restart
    accepted = (await world.release(allocation_id))["accepted_us"]
    assert (await world.allocation(allocation_id))["state"] == "active"
    world.kill()
    await world.restart()
    assert (await world.release(allocation_id))["accepted_us"] == accepted
    assert "allocation.release_accepted" in await audit(world, entity)
    # when it goes on, then its meter has stopped then
    await settle(world, "unknown_step", entity, "ops.case.resolve")
    await world.cleaned(allocation_id)
    (meter,) = await meters(world, allocation_id)
    assert (meter["stopped_us"], meter["stop_cause"]) == (accepted, "release")
