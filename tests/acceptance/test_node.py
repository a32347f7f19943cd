"""A node's own life from outside: heard, probed, suspected, flapping, drained, quarantined, moved, retired."""

import asyncio
from typing import Any

import asyncssh
import pytest

from adapters.embedded.ports import free_port
from adapters.simulated.node_users import NodeCommand
from tests.acceptance.console import settle
from tests.acceptance.machine import CUSTOMER_KEY, Machine, user_of
from tests.acceptance.records import all_is_well, audit, cases, events, notifications, runs
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
# A stall of this process is a real silence to the runtime: what is not about a short one gets room for it.
CONFIG = """
[timing]
suspect_after_ms = 2000
flap_window_ms = 60000
allocation_deadline_ms = 30000
"""


def about(machine: Machine, reason: str = "a test", **more: Any) -> dict[str, Any]:
    """The body of an operator's command on the node."""
    return {"node_id": machine.node_id, "reason": reason, **more}


async def test_a_node_is_ready_after_a_heartbeat_and_a_good_probe_and_not_before(world: World) -> None:
    # given a machine that is registered, silent, and cannot be reached
    machine = Machine(world, world.new_name("n"))
    world.machines[machine.node_id] = machine
    machine.beating = False
    await machine.start()
    ssh = {"host": "127.0.0.1", "port": machine.ssh.port, "host_key": machine.ssh.host_key}
    await machine.ssh.stop()
    await world.ok("cmd.node.register", {"node_id": machine.node_id, "ssh": ssh})
    assert (await world.node(machine.node_id))["state"] == "registered"
    waiting = await world.request(node_id=machine.node_id)
    # when it beats, then it is probed in vain
    machine.beating = True

    async def probed() -> Any:
        query = "SELECT * FROM public_v1.step WHERE entity = $1 AND name = 'ssh.probe' AND state = 'failed'"
        return await world.rows(query, f"node:{machine.node_id}")

    await until(probed, "it is probed in vain")
    assert (await world.node(machine.node_id))["state"] == "registered"
    # when it can be reached, then it is ready, and who waited for it gets it
    await machine.ssh.start()
    await world.node_is(machine.node_id, "ready")
    await world.allocation_is(waiting, "active")
    assert (await world.node(machine.node_id))["boot_id"] == machine.boot_id
    await world.release(waiting)
    await world.cleaned(waiting)
    await all_is_well(world)
    await machine.stop()


async def test_a_node_on_which_no_customer_could_be_set_up_is_not_ready_and_says_why(world: World) -> None:
    # given a machine that answers a probe with 0 and nothing else; and then refuses customers' logins
    machine = Machine(world, world.new_name("n"))
    world.machines[machine.node_id] = machine
    machine.fault("probe", "not_run", text="Managed by others.\n")
    machine.ssh.table.closed = "sshd's AllowUsers leave out am-x"
    await machine.start()
    ssh = {"host": "127.0.0.1", "port": machine.ssh.port, "host_key": machine.ssh.host_key}
    await world.ok("cmd.node.register", {"node_id": machine.node_id, "ssh": ssh})

    async def probed_twice() -> Any:
        query = "SELECT state, code FROM public_v1.step WHERE entity = $1 AND state <> 'intended' ORDER BY started_us"
        steps = await world.rows(query, f"node:{machine.node_id}")
        return steps if len(steps) > 1 else None

    # then it is probed in vain, and whoever asks reads what stands in the way
    steps = await until(probed_twice, "it is probed twice")
    assert [tuple(step.values()) for step in steps] == [("failed", "ssh_not_run"), ("failed", "ssh_step_failed")]
    assert (await world.node(machine.node_id))["state"] == "registered"
    told = await world.amends("why", machine.node_id)
    assert "ssh.probe  ssh_not_run: exit status 0, but the script did not run" in told
    assert "It said: Managed by others." in told
    assert "ssh.probe  ssh_step_failed: amends: customers cannot log in: sshd's AllowUsers leave out am-x" in told
    # and it is ready when that is gone
    machine.ssh.table.closed = ""
    await world.node_is(machine.node_id, "ready")
    await machine.stop()


async def test_a_gap_in_the_heartbeats_is_a_suspicion_and_nothing_for_the_customer(
    world: World, machine: Machine
) -> None:
    # given a customer
    allocation_id = await world.rent(node_id=machine.node_id)
    # when his node falls silent
    await machine.fall_silent()
    # then he notices nothing
    assert (await world.allocation(allocation_id))["state"] == "active"
    assert await machine.lets_in(allocation_id)
    # and nobody else is sent there
    other = await world.request(node_labels={"zone": "a"}, node_id=machine.node_id)
    # when it is heard again
    machine.beating = True
    row = await world.node_is(machine.node_id, "ready")
    assert (row["flap_count"], row["allocated_to"]) == (1, allocation_id)
    assert await runs(world, f"allocation:{allocation_id}") == []
    await world.release(other)
    await world.release(allocation_id)
    await world.cleaned(allocation_id)
    assert await events(world, f"node:{machine.node_id}") == ["registered", "ready", "suspect", "ready"]


async def test_a_suspect_node_is_not_rented_until_it_is_heard_again(world: World, machine: Machine) -> None:
    await machine.fall_silent()
    allocation_id = await world.request(node_id=machine.node_id)
    assert (await world.allocation(allocation_id))["state"] == "requested"
    machine.beating = True
    await world.allocation_is(allocation_id, "active")
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


async def test_a_node_that_flaps_is_quarantined_until_an_operator_lets_it_back(world: World, machine: Machine) -> None:
    # given a node that is silent and back four times
    for _ in range(4):
        await machine.fall_silent()
        machine.beating = True

        async def heard() -> bool:
            return bool((await world.node(machine.node_id))["state"] != "suspect")

        await until(heard, "it is heard again")
    # then
    row = await world.node_is(machine.node_id, "quarantined")
    assert (row["quarantine_reasons"], row["flap_count"]) == (["flapping"], 4)
    (case,) = await cases(world, f"node:{machine.node_id}")
    assert (case["kind"], case["state"]) == ("node_flapping", "open")
    kinds = [n["kind"] for n in await notifications(world, f"node:{machine.node_id}")]
    assert sorted(kinds) == ["case.opened", "node.quarantined"]
    # and it does not come back by itself, but by an operator's word, reconciled
    assert machine.reconciles == 0
    await settle(world, "node_flapping", f"node:{machine.node_id}", "ops.node.return_to_service")
    await world.node_is(machine.node_id, "ready")
    assert machine.reconciles == 1
    assert [c["state"] for c in await cases(world, f"node:{machine.node_id}")] == ["resolved"]


async def test_a_draining_node_keeps_its_customer_and_gets_no_other(world: World, machine: Machine) -> None:
    allocation_id = await world.rent(node_id=machine.node_id)
    await world.ok("ops.node.drain", about(machine))
    other = await world.request(node_id=machine.node_id)
    # the customer stays, also when the node is silent for a while
    await machine.fall_silent()
    machine.beating = True
    await world.node_is(machine.node_id, "draining")
    assert (await world.allocation(allocation_id))["state"] == "active"
    # and leaves as always, but the node is not given away
    await world.release(allocation_id)
    await world.cleaned(allocation_id)
    assert (await world.allocation(other))["state"] == "requested"
    await world.ok("ops.node.undrain", about(machine))
    await world.allocation_is(other, "active")
    await world.release(other)
    await world.cleaned(other)


async def test_a_quarantined_node_keeps_its_customer(world: World, machine: Machine) -> None:
    allocation_id = await world.rent(node_id=machine.node_id)
    await world.ok("ops.node.quarantine", about(machine, "odd noises"))
    row = await world.node(machine.node_id)
    assert (row["state"], row["quarantine_reasons"], row["allocated_to"]) == (
        "quarantined",
        ["operator"],
        allocation_id,
    )
    assert (await world.allocation(allocation_id))["state"] == "active"
    await world.release(allocation_id)
    await world.cleaned(allocation_id)
    # it stays there although it is clean
    assert (await world.node(machine.node_id))["state"] == "quarantined"
    await world.ok("ops.node.return_to_service", about(machine, "silence"))
    await world.node_is(machine.node_id, "ready")
    audited = await world.rows(
        "SELECT * FROM public_v1.audit_log WHERE target_ref = $1 AND reason IN ('odd noises', 'silence') ORDER BY seq",
        f"node:{machine.node_id}",
    )
    assert [row["actor"] for row in audited] == ["operator:local"] * len(audited)
    assert {row["reason"] for row in audited} == {"odd noises", "silence"}


async def test_a_node_comes_back_only_when_its_agent_has_answered(world: World, machine: Machine) -> None:
    machine.answers = False
    await world.ok("ops.node.quarantine", about(machine))
    await world.ok("ops.node.return_to_service", about(machine))

    async def asked() -> Any:
        query = "SELECT * FROM public_v1.step WHERE entity = $1 AND name = 'agent.reconcile' AND state <> 'intended'"
        return await world.rows(query, f"node:{machine.node_id}")

    await until(asked, "it was asked in vain")
    assert (await world.node(machine.node_id))["state"] == "quarantined"
    machine.answers = True
    await world.node_is(machine.node_id, "ready")


async def test_a_node_comes_back_only_without_users_that_nobody_rents(world: World, machine: Machine) -> None:
    # given a user of a rental that nobody knows any more, and one that was not made by Amends
    left, foreign = "0" * 26, "am-" + "9" * 26
    machine.ssh.table.apply(NodeCommand("user-create", f"am-{left}", f"alloc_{left}", "task_1", 1))
    machine.ssh.table.add_foreign(foreign)
    # when the node is let back
    await world.ok("ops.node.quarantine", about(machine))
    await world.ok("ops.node.return_to_service", about(machine))

    # then the first is removed, and for the other a person is called
    async def called() -> Any:
        return await cases(world, f"node:{machine.node_id}")

    (case,) = await until(called, "a person is called", 20)
    assert (case["kind"], case["state"]) == ("reconcile_stalled", "open")
    assert list(case["evidence"]["users"]) == [foreign]
    assert machine.users == [foreign]
    assert (await world.node(machine.node_id))["state"] == "quarantined"
    assert await audit(world, f"node:{machine.node_id}/user:am-{left}") == ["node.user_removed"]
    # when it is gone, then the node is back; who says so has it looked at now
    del machine.ssh.table.users[foreign]
    await settle(world, "reconcile_stalled", f"node:{machine.node_id}", "ops.node.return_to_service")
    await world.node_is(machine.node_id, "ready")
    assert [row["state"] for row in await cases(world, f"node:{machine.node_id}")] == ["resolved"]


async def test_a_host_key_that_does_not_fit_an_update_quarantines_at_once(world: World, machine: Machine) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    ssh = {"host": "127.0.0.1", "port": machine.ssh.port, "host_key": other}
    await world.ok("ops.node.update", about(machine, ssh=ssh))
    await world.node_is(machine.node_id, "quarantined")
    assert [row["kind"] for row in await cases(world, f"node:{machine.node_id}")] == ["host_key_mismatch"]


async def test_a_machine_that_moved_is_reached_at_its_new_address(world: World, machine: Machine) -> None:
    # given a machine that is somewhere else, with another key
    await machine.ssh.stop()
    machine.ssh.port = free_port()
    await machine.ssh.change_host_key()
    ssh = {"host": "127.0.0.1", "port": machine.ssh.port, "host_key": machine.ssh.host_key}
    await world.ok("ops.node.update", about(machine, ssh=ssh, labels={"rack": "7"}))
    assert (await world.node(machine.node_id))["labels"] == {"rack": "7"}
    allocation_id = await world.rent(node_labels={"rack": "7"})
    assert machine.users == [user_of(allocation_id)]
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


async def test_a_restart_of_a_free_machine_is_only_noted(world: World, machine: Machine) -> None:
    machine.boot_id = "another"

    async def noted() -> bool:
        return bool((await world.node(machine.node_id))["boot_id"] == "another")

    await until(noted, "the new boot id is stored")
    row = await world.node(machine.node_id)
    assert (row["state"], row["epoch"]) == ("ready", 1)
    assert await runs(world, f"node:{machine.node_id}") == []


async def test_a_retired_node_is_gone_and_its_id_may_be_used_again(world: World, machine: Machine) -> None:
    # given a node in use
    allocation_id = await world.rent(node_id=machine.node_id)
    await world.refused("ops.node.retire", about(machine), "illegal_transition")
    await world.ok("ops.node.quarantine", about(machine))
    await world.refused("ops.node.retire", about(machine), "illegal_transition")
    await world.release(allocation_id)
    await world.cleaned(allocation_id)
    # when it is free and retired
    await world.ok("ops.node.retire", about(machine))
    # then nothing more may be done with it
    for verb in ("drain", "undrain", "quarantine", "return_to_service", "retire"):
        await world.refused(f"ops.node.{verb}", about(machine), "illegal_transition")
    await world.refused("ops.node.update", about(machine, labels={}), "illegal_transition")
    # and a request for it is refused, as for any node that is not there
    wanted = {"account_id": "acme", "ssh_public_key": CUSTOMER_KEY, "rate_uminor_per_hour": 1}
    await world.refused("cmd.allocation.request", wanted | {"node_id": machine.node_id}, "not_found")
    # but a new machine may have its name, with a higher epoch
    ssh = {"host": "127.0.0.1", "port": machine.ssh.port, "host_key": machine.ssh.host_key}
    await world.ok("cmd.node.register", {"node_id": machine.node_id, "ssh": ssh})
    row = await world.node_is(machine.node_id, "ready")
    assert row["epoch"] == 2
    await world.refused("cmd.node.register", {"node_id": machine.node_id, "ssh": ssh}, "already_exists")
    again = await world.rent(node_id=machine.node_id)
    await world.release(again)
    await world.cleaned(again)


async def test_what_does_not_fit_a_nodes_state_is_refused(world: World, machine: Machine) -> None:
    before = await audit(world, f"node:{machine.node_id}")
    await world.refused("ops.node.return_to_service", about(machine), "illegal_transition")
    await world.refused("ops.node.retire", about(machine), "illegal_transition")
    await world.refused("ops.node.update", about(machine), "invalid_request")
    await world.ok("ops.node.undrain", about(machine))
    assert await audit(world, f"node:{machine.node_id}") == before
    await world.refused("ops.node.drain", {"node_id": "no-such-node", "reason": "typo"}, "not_found")


async def test_labels_choose_the_node_and_one_node_serves_one_customer(world: World, machine: Machine) -> None:
    # given two nodes of one rack, and three who want one
    second = await world.add_machine()
    rack = {"rack": world.new_name("rack")}
    for node in (machine, second):
        await world.ok("ops.node.update", about(node, labels=rack | {"zone": "a"}))
    wanted = await asyncio.gather(*(world.request(node_labels=rack) for _ in range(3)))

    async def two_live() -> bool:
        rows = [await world.allocation(each) for each in wanted]
        return sorted(row["state"] for row in rows) == ["active", "active", "requested"]

    await until(two_live, "two have a node and one waits")
    rows = [await world.allocation(each) for each in wanted]
    assert {row["node_id"] for row in rows if row["state"] == "active"} == {machine.node_id, second.node_id}
    # when one leaves, then the third gets his node
    first = next(row["allocation_id"] for row in rows if row["state"] == "active")
    await world.release(first)
    last = next(row["allocation_id"] for row in rows if row["state"] == "requested")
    await world.allocation_is(last, "active")
    for each in wanted:
        await world.release(each)
        await world.cleaned(each)
    await second.stop()


def _wanting(machine: Machine) -> dict[str, Any]:
    return {
        "account_id": "acme", "ssh_public_key": CUSTOMER_KEY, "rate_uminor_per_hour": 1, "node_id": machine.node_id,
    }  # fmt: skip
