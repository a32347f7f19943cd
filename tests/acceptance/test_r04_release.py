"""R04 from outside: a release is over for the customer at once; what its node still owes is retried, then escalated."""

import time
from typing import Any

import pytest

from adapters.simulated.ssh_node import FaultKind
from tests.acceptance.machine import Machine, user_of
from tests.acceptance.records import audit, cases, ended_run, events, meters, notifications, run_of, runs
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def target(machine: Machine, allocation_id: str) -> str:
    """The user of the allocation on its node."""
    return f"node:{machine.node_id}/user:{user_of(allocation_id)}"


async def escalated(world: World, machine: Machine, allocation_id: str) -> dict[str, Any]:
    """Wait until all tries of the cleanup are spent; the case."""

    async def check() -> Any:
        found = await cases(world, f"allocation:{allocation_id}")
        return [case for case in found if case["kind"] == "cleanup_exhausted"]

    (case,) = await until(check, "the cleanup is escalated")
    assert case["state"] == "open"
    await world.node_is(machine.node_id, "quarantined")
    return dict(case)


async def test_a_release_cleans_the_node_and_stops_the_meter_at_the_accepted_time(
    world: World, machine: Machine
) -> None:
    # given a customer who is logged in
    allocation_id = await world.rent(node_id=machine.node_id)
    assert await machine.lets_in(allocation_id)
    assert (await world.node(machine.node_id))["allocated_to"] == allocation_id
    # when the allocation is released
    accepted = (await world.release(allocation_id))["accepted_us"]
    # then he was locked out before it was over, and the meter stopped when the release was accepted
    row = await world.cleaned(allocation_id)
    assert machine.ops(allocation_id) == ["user-create", "key-install", "user-lock", "user-remove"]
    (lock,) = [call for call in machine.calls(allocation_id) if call.op == "user-lock"]
    assert lock.at_us <= row["ended_us"]
    assert not await machine.lets_in(allocation_id)
    assert (row["state"], row["release_cause"], row["billing_state"]) == ("released", "user", "stopped")
    (meter,) = await meters(world, allocation_id)
    assert (meter["state"], meter["stopped_us"], meter["stop_cause"]) == ("stopped", accepted, "release")
    assert await runs(world, f"allocation:{allocation_id}") == []
    assert await events(world, f"allocation:{allocation_id}") == [
        "requested", "provisioning", "activating", "active", "releasing", "released",
    ]  # fmt: skip
    told = await notifications(world, f"allocation:{allocation_id}")
    assert [n["kind"] for n in told] == ["allocation.active", "allocation.released"]
    # and the node is free again
    node = await world.node(machine.node_id)
    assert (node["state"], node["allocated_to"], node["dirty"]) == ("ready", None, False)


async def test_without_an_ssh_server_the_release_is_over_and_its_cleanup_ends_with_an_operator(
    world: World, machine: Machine
) -> None:
    # given an active allocation whose SSH server goes away
    allocation_id = await world.rent(node_id=machine.node_id)
    entity, user = f"allocation:{allocation_id}", target(machine, allocation_id)
    await machine.ssh.stop()
    # when it is released
    accepted = (await world.release(allocation_id))["accepted_us"]
    # then it is released, the meter stopped when the release was accepted, and the node owes the cleanup
    row = await world.allocation_is(allocation_id, "released")
    assert row["billing_state"] == "stopped"
    assert row["cleanup_pending"]
    (meter,) = await meters(world, allocation_id)
    assert (meter["stopped_us"], meter["stop_cause"]) == (accepted, "release")
    assert (await world.node(machine.node_id))["dirty"]
    # then the tries are spent, and a person is asked
    case = await escalated(world, machine, allocation_id)
    assert {"ops.cleanup.retry", "ops.node.retire"} <= set(case["commands"])
    row = await world.allocation(allocation_id)
    assert (row["state"], row["cleanup_pending"], row["cleanup_attempts"]) == ("released", True, 3)
    failed = await run_of(world, entity, "R04")
    assert failed.outcome == "failed"
    matrix = await world.ok("ops.matrix.show", {})
    assert (failed.row["matrix_version"], failed.row["matrix_sha256"]) == (matrix["version"], matrix["sha256"])
    assert failed.shape() == [
        f"compensate·side_effect·{user}·partial",
        f"compensate·side_effect·{user}·failure",
    ]
    assert failed.kinds().count("retry·failure") == 3
    assert failed.kinds()[-1] == "escalate·success"
    assert case["recovery_trace_id"] == failed.row["recovery_trace_id"]
    assert {failure["code"] for failure in failed.failures} == {"ssh_connect_failed"}
    kinds = [n["kind"] for n in await notifications(world, entity) if n["audience"] == "ops"]
    assert kinds == ["case.opened", "case.opened"]
    assert [(c["kind"], c["state"]) for c in await cases(world, entity)] == [
        ("lockout_failed", "open"), ("cleanup_exhausted", "open"),
    ]  # fmt: skip
    node = await world.node(machine.node_id)
    assert (node["dirty"], node["quarantine_reasons"]) == (True, ["cleanup_exhausted"])
    # when the server is back and the operator has it tried again
    await machine.ssh.start()
    await world.ok("ops.cleanup.retry", {"allocation_id": allocation_id, "reason": "cable was out"})
    # then a new run cleans up, by the operator's name, and all is settled
    row = await world.cleaned(allocation_id)
    assert row["state"] == "released"
    await world.node_is(machine.node_id, "ready")
    first, second = await runs(world, entity, "R04")
    assert (first.outcome, second.outcome) == ("failed", "recovered")
    assert second.shape() == [f"reverse·side_effect·{user}·success"]
    assert second.compensations[0]["metadata"]["supersedes"] == first.compensations[-1]["compensation_id"]
    assert "local" in str(second.actions[-1])
    by_operator = await world.one(
        "SELECT * FROM public_v1.audit_log WHERE target_ref = $1 AND reason = 'cable was out'", entity
    )
    assert by_operator["actor"] == "operator:local"
    assert [c["state"] for c in await cases(world, entity)] == ["resolved", "resolved"]
    assert machine.reconciles == 1
    assert machine.users == []
    assert [meter["stopped_us"] for meter in await meters(world, allocation_id)] == [accepted]


async def test_a_cleanup_that_fails_once_is_tried_again_by_itself(world: World, machine: Machine) -> None:
    # given
    allocation_id = await world.rent(node_id=machine.node_id)
    machine.fault("user-remove", "exit")
    machine.fault("user-remove", "delay", seconds=0.5)
    # when
    await world.release(allocation_id)
    await world.allocation_is(allocation_id, "released")

    # then the run is degraded as long as the removal is owed
    async def degraded() -> Any:
        return [run for run in await runs(world, f"allocation:{allocation_id}", "R04") if run.outcome == "degraded"]

    await until(degraded, "the run is degraded")
    assert not await machine.lets_in(allocation_id)
    row = await world.cleaned(allocation_id)
    assert row["cleanup_attempts"] == 2
    run = await ended_run(world, f"allocation:{allocation_id}", "R04")
    user = target(machine, allocation_id)
    assert run.shape() == [f"compensate·side_effect·{user}·partial", f"reverse·side_effect·{user}·success"]
    assert run.supersedes() == [None, 0]
    assert run.outcome == "recovered"
    assert run.kinds().count("retry·failure") == 1
    assert (await world.node(machine.node_id))["state"] == "ready"
    assert await cases(world, f"allocation:{allocation_id}") == []


async def test_a_lock_that_fails_does_not_hold_the_release_up_and_spends_no_try(world: World, machine: Machine) -> None:
    # given
    allocation_id = await world.rent(node_id=machine.node_id)
    machine.fault("user-lock", "exit")
    # when
    await world.release(allocation_id)
    # then it is released all the same, the lock comes first in the cleanup, and one try was enough
    row = await world.cleaned(allocation_id)
    assert (row["state"], row["cleanup_attempts"]) == ("released", 1)
    assert machine.ops(allocation_id)[2:] == ["user-lock", "user-lock", "user-remove"]
    run = await ended_run(world, f"allocation:{allocation_id}", "R04")
    user = target(machine, allocation_id)
    assert run.shape() == [f"compensate·side_effect·{user}·partial", f"reverse·side_effect·{user}·success"]
    assert run.supersedes() == [None, 0]


@pytest.mark.parametrize(
    ("kind", "more", "code"),
    [("not_run", {}, "ssh_not_run"), ("exit", {"exit_status": 74}, "ssh_retryable")],
)
async def test_a_removal_that_proves_nothing_leaves_the_node_dirty_and_names_its_code(
    world: World, machine: Machine, kind: FaultKind, more: dict[str, int], code: str
) -> None:
    # given a customer, under whom something takes the place of lock and removal, and ends with 0
    allocation_id = await world.rent(node_id=machine.node_id)
    machine.fault("user-lock", kind, times=2, **more)
    machine.fault("user-remove", kind, times=3, **more)
    # when the allocation is released, then it is over, and the node is neither clean nor rented again
    await world.release(allocation_id)
    case = await escalated(world, machine, allocation_id)
    assert case["evidence"]["code"] == code
    row = await world.allocation(allocation_id)
    assert (row["state"], row["cleanup_pending"]) == ("released", True)
    assert (await world.node(machine.node_id))["dirty"]
    assert machine.users == [user_of(allocation_id)]
    run = await ended_run(world, f"allocation:{allocation_id}", "R04")
    assert (run.outcome, {failure["code"] for failure in run.failures}) == ("failed", {code})
    assert {name.rpartition("·")[2] for name in run.shape()} == {"partial", "failure"}
    # and it is when the real removal has run
    machine.ssh.faults.clear()
    await world.ok("ops.cleanup.retry", {"allocation_id": allocation_id, "reason": "the forced command is gone"})
    await world.cleaned(allocation_id)
    await world.node_is(machine.node_id, "ready")
    assert machine.users == []


async def test_while_the_node_is_suspect_its_cleanup_waits_and_spends_no_try(world: World, machine: Machine) -> None:
    # given a node that has gone silent with its SSH server
    allocation_id = await world.rent(node_id=machine.node_id)
    await machine.fall_silent()
    await machine.ssh.stop()
    # when the allocation is released
    await world.release(allocation_id)
    row = await world.allocation_is(allocation_id, "released")
    # then nothing is tried, for longer than all tries would take
    waited = time.monotonic() + 1.0
    while time.monotonic() < waited:
        row = await world.allocation(allocation_id)
        assert (row["cleanup_pending"], row["cleanup_attempts"]) == (True, 0)
        assert (await world.node(machine.node_id))["state"] in ("suspect", "offline")
    # when the node is back
    await machine.ssh.start()
    machine.beating = True
    # then it is cleaned
    row = await world.cleaned(allocation_id)
    assert row["cleanup_attempts"] == 1
    run = await ended_run(world, f"allocation:{allocation_id}", "R04")
    assert run.outcome == "recovered"
    await world.node_is(machine.node_id, "ready")
    assert machine.users == []


async def test_the_customer_stays_out_while_the_removal_is_owed(world: World, machine: Machine) -> None:
    # given a removal that takes its time
    allocation_id = await world.rent(node_id=machine.node_id)
    assert await machine.lets_in(allocation_id)
    machine.fault("user-remove", "delay", seconds=0.6)
    # when
    await world.release(allocation_id)
    # then he is out although his user is still there
    await world.allocation_is(allocation_id, "released")
    assert machine.users == [user_of(allocation_id)]
    assert not await machine.lets_in(allocation_id)
    await world.cleaned(allocation_id)
    assert machine.users == []


async def test_what_is_owed_is_settled_by_its_command_and_by_nothing_else(world: World, machine: Machine) -> None:
    # given a case with its debt
    allocation_id = await world.rent(node_id=machine.node_id)
    machine.fault("user-remove", "exit", times=6)
    await world.release(allocation_id)
    case = await escalated(world, machine, allocation_id)
    # then it can be acknowledged, but not simply closed, nor the node be let in
    await world.ok("ops.case.acknowledge", {"case_id": case["case_id"], "reason": "on it"})
    await world.refused("ops.case.resolve", {"case_id": case["case_id"], "reason": "looks fine"}, "debt_open")
    back = {"node_id": machine.node_id, "reason": "looks fine"}
    await world.refused("ops.node.return_to_service", back, "debt_open")
    assert [c["state"] for c in await cases(world, f"allocation:{allocation_id}")] == ["open"]
    # when the operator has it tried again in vain, then the case is open again, with another run behind it
    await world.ok("ops.cleanup.retry", {"allocation_id": allocation_id, "reason": "try"})

    async def again() -> Any:
        found = await runs(world, f"allocation:{allocation_id}", "R04")
        return len(found) == 2 and found[1].outcome == "failed"

    await until(again, "the second run has failed")
    assert [c["state"] for c in await cases(world, f"allocation:{allocation_id}")] == ["open"]
    # when the third time succeeds
    await world.ok("ops.cleanup.retry", {"allocation_id": allocation_id, "reason": "once more"})
    await world.cleaned(allocation_id)
    await world.node_is(machine.node_id, "ready")
    assert [c["state"] for c in await cases(world, f"allocation:{allocation_id}")] == ["resolved"]
    actions = await audit(world, f"case:{case['case_id']}")
    assert (actions[0], actions[1], actions[-1]) == ("case.open", "case.acknowledged", "case.resolved")


async def test_a_dirty_node_that_an_operator_lets_in_still_gets_no_customer(world: World, machine: Machine) -> None:
    # given a node that is quarantined for the removal it owes
    allocation_id = await world.rent(node_id=machine.node_id)
    machine.fault("user-remove", "exit", times=3)
    await world.release(allocation_id)
    await escalated(world, machine, allocation_id)
    # when an operator lets it in as it is
    back = {"node_id": machine.node_id, "reason": "only a leftover", "acknowledge_dirty": True}
    await world.ok("ops.node.return_to_service", back)
    await world.node_is(machine.node_id, "ready")
    # then it is ready and dirty, and nobody gets it
    assert (await world.node(machine.node_id))["dirty"]
    second = await world.request(node_id=machine.node_id)
    assert (await world.allocation(second))["state"] == "requested"
    # until the debt is settled
    await world.ok("ops.cleanup.retry", {"allocation_id": allocation_id, "reason": "now"})
    await world.allocation_is(second, "active")
    assert machine.users == [user_of(second)]
    await world.release(second)
    await world.cleaned(second)


async def test_a_node_with_debts_may_be_retired_and_they_are_settled_as_lost(world: World, machine: Machine) -> None:
    # given a node that owes a removal it can no longer do
    allocation_id = await world.rent(node_id=machine.node_id)
    machine.fault("user-remove", "exit", times=3)
    await world.release(allocation_id)
    await escalated(world, machine, allocation_id)
    gone = {"node_id": machine.node_id, "reason": "scrapped"}
    await world.refused("ops.node.retire", gone, "debt_open")
    # when it is retired for good
    await world.ok("ops.node.retire", {**gone, "acknowledge_lost": True})
    # then the debt is settled as cancelled and the case closed
    await world.cleaned(allocation_id)
    newest = (await runs(world, f"allocation:{allocation_id}", "R04"))[-1]
    assert newest.shape()[-1] == f"cancel·side_effect·{target(machine, allocation_id)}·success"
    assert newest.outcome == "recovered"
    assert [c["state"] for c in await cases(world, f"allocation:{allocation_id}")] == ["resolved"]
    assert (await world.node(machine.node_id))["state"] == "retired"


async def test_a_cleanup_that_is_not_owed_cannot_be_retried(world: World, machine: Machine) -> None:
    allocation_id = await world.rent(node_id=machine.node_id)
    retry = {"allocation_id": allocation_id, "reason": "why not"}
    await world.refused("ops.cleanup.retry", retry, "illegal_transition")
    await world.release(allocation_id)
    await world.cleaned(allocation_id)
    await world.refused("ops.cleanup.retry", retry, "illegal_transition")
    unknown = {"allocation_id": "alloc_01aaaaaaaaaaaaaaaaaaaaaaaa", "reason": "typo"}
    await world.refused("ops.cleanup.retry", unknown, "not_found")
    assert await runs(world, f"allocation:{allocation_id}") == []


async def test_a_second_release_names_the_time_of_the_first(world: World, machine: Machine) -> None:
    # given a release under way
    allocation_id = await world.rent(node_id=machine.node_id)
    machine.fault("user-lock", "delay", seconds=0.4)
    first = await world.release(allocation_id)
    # when it is released again, then the first acceptance stands
    second = await world.release(allocation_id)
    assert second["allocation"]["state"] == "releasing"
    assert second["accepted_us"] == first["accepted_us"]
    assert "already_terminal" not in second
    # and when it has ended
    row = await world.cleaned(allocation_id)
    third = await world.release(allocation_id)
    assert third["already_terminal"] is True
    assert third["accepted_us"] == first["accepted_us"]
    assert (await world.allocation(allocation_id))["version"] == row["version"]
    assert machine.ops(allocation_id).count("user-remove") == 1


async def test_the_next_customer_gets_the_node_only_when_it_is_clean(world: World, machine: Machine) -> None:
    # given a node that owes a slow removal, and somebody who waits for it
    first = await world.rent(node_id=machine.node_id)
    machine.fault("user-remove", "exit")
    machine.fault("user-remove", "delay", seconds=0.5)
    await world.release(first)
    await world.allocation_is(first, "released")
    second = await world.request(node_id=machine.node_id)
    assert (await world.allocation(second))["state"] == "requested"
    # then he gets it after the removal, not before
    await world.allocation_is(second, "active")
    removed = [call.at_us for call in machine.calls(first) if call.op == "user-remove"][-1]
    created = next(call.at_us for call in machine.calls(second) if call.op == "user-create")
    assert removed <= created
    await world.release(second)
    await world.cleaned(second)


async def test_a_command_may_name_its_entity_in_the_subject(world: World, machine: Machine) -> None:
    allocation_id = await world.rent(node_id=machine.node_id)
    subject, key = f"cmd.allocation.release.{allocation_id}", world.new_key()
    # another one in the data is refused for that, and nobody is taken for it
    other = await world.refused(subject, {"allocation_id": "alloc_x"}, "invalid_request")
    assert other["details"]["field"] == "allocation_id"
    await world.refused("cmd.allocation.release.alloc_x", {}, "invalid_request")
    await world.refused("cmd.allocation.release.alloc_00000000000000000000000000", {}, "not_found")
    # without, it is the same command, and so is a repeat that names it in the data
    assert (await world.ask(subject, b"", key=key))["ok"]
    again = await world.ask("cmd.allocation.release", {"allocation_id": allocation_id}, key=key)
    assert (again["ok"], again["duplicate"]) == (True, True)
    await world.cleaned(allocation_id)
