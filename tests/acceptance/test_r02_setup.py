"""R02 from outside: what fails while the user and the key are set up is undone, and the node is free again."""

import time
from typing import Any

import pytest

from adapters.simulated.ssh_node import FaultKind
from tests.acceptance.console import settle
from tests.acceptance.machine import Machine, user_of
from tests.acceptance.records import cases, ended_run, events, meters, notifications, run_of, runs
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNKNOWN_OUTCOMES: list[tuple[str, FaultKind, str]] = [
    ("user-create", "exit", "ssh_step_failed"),
    ("key-install", "exit", "ssh_step_failed"),
    ("user-create", "hang", "ssh_timeout"),
    ("key-install", "hang", "ssh_timeout"),
    ("user-create", "drop_before", "ssh_step_failed"),
    ("user-create", "drop_after", "ssh_step_failed"),
    ("user-create", "no_exit_status", "ssh_step_failed"),
    ("key-install", "drop_before", "ssh_step_failed"),
    ("key-install", "drop_after", "ssh_step_failed"),
    ("key-install", "no_exit_status", "ssh_step_failed"),
    ("user-create", "not_run", "ssh_step_failed"),
    ("user-create", "no_line", "ssh_step_failed"),
    ("key-install", "not_run", "ssh_step_failed"),
    ("key-install", "no_line", "ssh_step_failed"),
]


async def failed(world: World, machine: Machine, allocation_id: str, code: str) -> dict[str, Any]:
    """The allocation has failed with `code`; nothing runs, nothing is reserved, the customer was told once."""
    row = await world.allocation_is(allocation_id, "failed")
    assert row["failure_code"] == code
    assert (row["billing_state"], row["activated_us"]) == ("none", None)
    assert row["ended_us"] >= row["requested_us"]
    node = await world.node(machine.node_id)
    assert (node["reserved_by"], node["allocated_to"]) == (None, None)
    assert await meters(world, allocation_id) == []
    told = [n for n in await notifications(world, f"allocation:{allocation_id}") if n["audience"] == "account"]
    assert [n["kind"] for n in told] == ["allocation.failed"]
    return row


def undone(machine: Machine, allocation_id: str, *, reverse: bool = True) -> list[str]:
    """The compensations of a set-up: the user (if it may exist), then the reservation."""
    user = f"reverse·side_effect·node:{machine.node_id}/user:{user_of(allocation_id)}·success"
    reservation = f"rollback·state_change·node:{machine.node_id}·success"
    return [user, reservation] if reverse else [reservation]


async def test_without_an_ssh_server_the_allocation_fails_and_only_the_reservation_is_rolled_back(
    world: World, machine: Machine
) -> None:
    # given a node whose SSH server went away after it had become ready
    await machine.ssh.stop()
    # when it is rented
    allocation_id = await world.request(node_id=machine.node_id)
    # then
    await failed(world, machine, allocation_id, "ssh_connect_failed")
    entity = f"allocation:{allocation_id}"
    run = await ended_run(world, entity, "R02")
    assert run.shape() == undone(machine, allocation_id, reverse=False)
    assert run.outcome == "recovered"
    assert run.row["trigger_type"] == "failure"
    (failure,) = run.failures
    assert (failure["code"], failure["failure_type"], failure["propagation_hop"]) == ("ssh_connect_failed", "error", 0)
    assert run.row["trigger_ref"] == f"failure:{failure['failure_id']}"
    assert not (await world.node(machine.node_id))["dirty"]
    assert await events(world, entity) == ["requested", "provisioning", "failed"]
    # and when the server is back, the next customer gets the node
    await machine.ssh.start()
    second = await world.rent(node_id=machine.node_id)
    assert machine.users == [user_of(second)]
    await world.release(second)
    await world.cleaned(second)


@pytest.mark.parametrize(("op", "kind", "code"), UNKNOWN_OUTCOMES)
async def test_a_step_that_may_have_run_is_undone_before_the_reservation_is_rolled_back(
    world: World, machine: Machine, op: str, kind: FaultKind, code: str
) -> None:
    # given
    machine.fault(op, kind)
    # when
    allocation_id = await world.request(node_id=machine.node_id)
    # then
    row = await failed(world, machine, allocation_id, code)
    run = await ended_run(world, f"allocation:{allocation_id}", "R02")
    assert run.shape() == undone(machine, allocation_id)
    assert run.outcome == "recovered"
    (failure,) = run.failures
    assert failure["failure_type"] == ("timeout" if code == "ssh_timeout" else "error")
    assert failure["code"] == ("ssh_not_run" if kind in ("not_run", "no_line") else code)
    seen = ["user-create", "key-install"]
    assert machine.ops(allocation_id) == [*seen[: seen.index(op) + 1], "user-remove"]
    assert machine.users == []
    assert not row["cleanup_pending"]
    assert not (await world.node(machine.node_id))["dirty"]


async def test_a_customer_who_could_not_log_in_is_not_billed(world: World, machine: Machine) -> None:
    # given a node that was closed to customers after it had become ready
    machine.ssh.table.closed = "there is /etc/nologin"
    # when it is rented, then the set-up fails, says why, and is undone
    allocation_id = await world.request(node_id=machine.node_id)
    await failed(world, machine, allocation_id, "ssh_step_failed")
    run = await ended_run(world, f"allocation:{allocation_id}", "R02")
    assert run.shape() == undone(machine, allocation_id)
    assert [failure["message"] for failure in run.failures] == [
        "amends: customers cannot log in: there is /etc/nologin"
    ]
    assert machine.users == []


@pytest.mark.parametrize(("status", "code"), [(74, "ssh_retryable"), (75, "ssh_stale_epoch")])
async def test_what_an_exit_status_means_stands_in_the_records_and_the_customer_reads_a_code_of_the_list(
    world: World, machine: Machine, status: int, code: str
) -> None:
    machine.fault("user-create", "exit", exit_status=status)
    allocation_id = await world.request(node_id=machine.node_id)
    await failed(world, machine, allocation_id, "ssh_step_failed")
    run = await ended_run(world, f"allocation:{allocation_id}", "R02")
    assert [failure["code"] for failure in run.failures] == [code]
    query = "SELECT code FROM public_v1.step WHERE entity = $1 AND name = 'ssh.user-create'"
    assert (await world.one(query, f"allocation:{allocation_id}"))["code"] == code


async def test_a_refused_login_fails_the_allocation_and_nothing_needs_undoing(world: World, machine: Machine) -> None:
    await machine.refuse_logins()
    allocation_id = await world.request(node_id=machine.node_id)
    await failed(world, machine, allocation_id, "ssh_auth_failed")
    run = await ended_run(world, f"allocation:{allocation_id}", "R02")
    assert run.shape() == undone(machine, allocation_id, reverse=False)
    assert machine.ops() == []


async def test_another_host_key_quarantines_the_node_until_an_operator_says_what_it_is(
    world: World, machine: Machine
) -> None:
    # given a machine that shows another host key than the pinned one
    await machine.ssh.change_host_key()
    # when it is rented
    allocation_id = await world.request(node_id=machine.node_id)
    # then the allocation fails, nothing was run there, and the node is out of service with a case
    await failed(world, machine, allocation_id, "ssh_host_key_mismatch")
    run = await ended_run(world, f"allocation:{allocation_id}", "R02")
    assert run.shape() == undone(machine, allocation_id, reverse=False)
    assert machine.ops() == []
    node = await world.node_is(machine.node_id, "quarantined")
    assert node["quarantine_reasons"] == ["host_key_mismatch"]
    target = f"node:{machine.node_id}"
    (case,) = await cases(world, target)
    assert (case["kind"], case["state"]) == ("host_key_mismatch", "open")
    assert "ops.node.update" in case["commands"]
    kinds = {n["kind"] for n in await notifications(world, target)}
    assert kinds == {"node.quarantined", "case.opened"}
    # and when an operator names the new key and lets the node back in
    await settle(world, "host_key_mismatch", target, "ops.node.update", ssh__host_key=machine.ssh.host_key)
    await settle(world, "host_key_mismatch", target, "ops.node.return_to_service")
    # then it serves again and the case is closed
    await world.node_is(machine.node_id, "ready")
    assert [case["state"] for case in await cases(world, target)] == ["resolved"]
    second = await world.rent(node_id=machine.node_id)
    await world.release(second)
    await world.cleaned(second)


async def test_a_removal_that_fails_too_is_a_debt_that_the_same_run_settles(world: World, machine: Machine) -> None:
    # given a key that cannot be installed and a user that cannot be removed at first; then only slowly
    machine.fault("key-install", "exit")
    machine.fault("user-remove", "exit")
    machine.fault("user-remove", "delay", seconds=1.0)
    # when
    allocation_id = await world.request(node_id=machine.node_id)
    await failed(world, machine, allocation_id, "ssh_step_failed")
    # then the run is degraded and the node owes the removal
    run = await run_of(world, f"allocation:{allocation_id}", "R02")
    target = f"node:{machine.node_id}/user:{user_of(allocation_id)}"
    owed = [f"reverse·side_effect·{target}·failure", f"rollback·state_change·node:{machine.node_id}·success"]
    assert run.shape() == owed
    assert (run.outcome, run.row["ended_at"]) == ("degraded", None)
    assert (await world.allocation(allocation_id))["cleanup_pending"]
    assert (await world.node(machine.node_id))["dirty"]
    debt = await world.one("SELECT * FROM public_v1.debt WHERE node_id = $1", machine.node_id)
    assert (debt["kind"], debt["target_ref"], debt["allocation_id"]) == ("user", target, allocation_id)
    # and nobody gets the node meanwhile
    second = await world.request(node_id=machine.node_id)
    assert (await world.allocation(second))["state"] == "requested"
    # when the removal succeeds, then the same run ends well and the waiting customer gets the node
    await world.cleaned(allocation_id)
    run = await ended_run(world, f"allocation:{allocation_id}", "R02")
    assert run.shape() == [*owed, f"reverse·side_effect·{target}·success"]
    assert run.supersedes() == [None, None, 0]
    assert run.outcome == "recovered"
    assert await world.rows("SELECT * FROM public_v1.debt WHERE node_id = $1", machine.node_id) == []
    await world.allocation_is(second, "active")
    await world.release(second)
    await world.cleaned(second)


async def test_removals_that_never_succeed_end_in_a_case_and_a_quarantined_node(world: World, machine: Machine) -> None:
    # given
    machine.fault("key-install", "exit")
    machine.fault("user-remove", "exit", times=4)  # once inline, then the three tries of the cleanup
    # when
    allocation_id = await world.request(node_id=machine.node_id)
    await failed(world, machine, allocation_id, "ssh_step_failed")
    # then
    run = await ended_run(world, f"allocation:{allocation_id}", "R02")
    assert run.outcome == "failed"
    assert run.kinds()[-1] == "escalate·success"
    assert run.kinds().count("retry·failure") == 3
    (case,) = await cases(world, f"allocation:{allocation_id}")
    assert (case["kind"], case["state"]) == ("cleanup_exhausted", "open")
    await world.node_is(machine.node_id, "quarantined")
    # and when an operator has it tried again, then all is clean
    await world.ok("ops.cleanup.retry", {"allocation_id": allocation_id, "reason": "disk was full"})
    await world.cleaned(allocation_id)
    await world.node_is(machine.node_id, "ready")
    assert machine.users == []


async def test_a_set_up_that_arrives_after_its_undo_is_refused_by_its_tombstone(world: World, machine: Machine) -> None:
    # given a user-create that lingers beyond its time and is applied afterwards
    machine.fault("user-create", "delay", seconds=3.0)
    # when
    allocation_id = await world.request(node_id=machine.node_id)
    await failed(world, machine, allocation_id, "ssh_timeout")

    # then the late one is refused, and no user is left
    async def late() -> bool:
        return [call.exit for call in machine.calls(allocation_id) if call.op == "user-create"] == [75]

    await until(late, "the late user-create is refused")
    assert machine.users == []


@pytest.mark.parametrize("op", ["user-create", "key-install"])
async def test_a_release_during_the_set_up_cancels_and_undoes_it(world: World, machine: Machine, op: str) -> None:
    # given a set-up under way
    machine.fault(op, "delay", seconds=0.6)
    allocation_id = await world.request(node_id=machine.node_id)

    async def under_way() -> Any:
        query = "SELECT * FROM public_v1.step WHERE entity = $1 AND name = $2 AND state = 'intended'"
        return await world.rows(query, f"allocation:{allocation_id}", f"ssh.{op}")

    await until(under_way, f"{op} is under way")
    # when it is released
    reply = await world.release(allocation_id)
    # then
    assert reply["accepted_us"] >= reply["allocation"]["requested_us"]
    row = await failed(world, machine, allocation_id, "cancelled")
    assert row["release_cause"] == "user"
    run = await ended_run(world, f"allocation:{allocation_id}", "R02")
    assert run.shape() == undone(machine, allocation_id)
    assert machine.ops(allocation_id).count("user-remove") == 1
    assert machine.users == []
    # and a second release says that it has ended, and when the first was accepted
    again = await world.release(allocation_id)
    assert (again["already_terminal"], again["accepted_us"]) == (True, reply["accepted_us"])


async def test_a_release_before_a_node_was_found_cancels_without_compensation(world: World) -> None:
    allocation_id = await world.request(node_labels={"zone": "nowhere"})
    reply = await world.release(allocation_id)
    row = await world.allocation_is(allocation_id, "failed")
    assert (row["failure_code"], row["release_cause"]) == ("cancelled", "user")
    assert reply["accepted_us"] >= row["requested_us"]
    assert await runs(world, f"allocation:{allocation_id}") == []


async def test_without_an_assignable_node_the_request_fails_at_its_deadline(world: World) -> None:
    begun = time.monotonic()
    allocation_id = await world.request(node_labels={"zone": "nowhere"})
    row = await world.allocation_is(allocation_id, "failed")
    assert row["failure_code"] == "no_capacity"
    assert 3_000_000 <= row["ended_us"] - row["requested_us"] < 4_000_000
    assert time.monotonic() - begun < 5
    assert await runs(world, f"allocation:{allocation_id}") == []
    assert await events(world, f"allocation:{allocation_id}") == ["requested", "failed"]


async def test_a_machine_that_restarts_under_its_set_up_loses_the_allocation(world: World, machine: Machine) -> None:
    # given a set-up under way
    machine.fault("key-install", "delay", seconds=0.6)
    allocation_id = await world.request(node_id=machine.node_id)
    await world.allocation_is(allocation_id, "provisioning")
    # when the machine beats with another boot id
    machine.boot_id = "another"
    # then
    row = await world.allocation_is(allocation_id, "failed")
    assert row["failure_code"] in {"node_offline", "node_rebooted"}
    run = await ended_run(world, f"allocation:{allocation_id}", "R02")
    assert run.shape() == undone(machine, allocation_id)
    assert await meters(world, allocation_id) == []
    assert machine.users == []
