"""Bad nodes from outside: one that fails everybody, one with a clone, one that is another, one that is not there."""

import asyncio
import json
import time
from typing import Any

import pytest

from tests.acceptance.console import settle
from tests.acceptance.machine import CUSTOMER_KEY, Machine
from tests.acceptance.records import cases
from tests.acceptance.world import RATE, World

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONFIG = """
[timing]
suspect_after_ms = 3000
flap_window_ms = 60000
"""


async def test_a_node_that_fails_its_customers_is_out_after_three_of_them(world: World, machine: Machine) -> None:
    # given a node on which every set-up fails, and ten customers who want it
    machine.fault("user-create", "exit", times=99)
    ids = await asyncio.gather(*(world.request(node_id=machine.node_id) for _ in range(10)))
    # when three have failed, then it is quarantined with a case, and the others are not sent there
    await world.node_is(machine.node_id, "quarantined")
    rows = [await world.allocation_is(each, "failed") for each in ids]
    codes = sorted(row["failure_code"] for row in rows)
    assert codes == ["no_capacity"] * 7 + ["ssh_step_failed"] * 3
    (case,) = await cases(world, f"node:{machine.node_id}")
    assert (case["kind"], case["state"]) == ("setup_failing", "open")
    assert (await world.node(machine.node_id))["quarantine_reasons"] == ["setup_failing"]
    # and once it is mended an operator lets it back
    machine.ssh.faults.clear()
    for each in ids:
        await world.cleaned(each)
    await settle(world, "setup_failing", f"node:{machine.node_id}", "ops.node.return_to_service")
    await world.node_is(machine.node_id, "ready")
    assert [each["state"] for each in await cases(world, f"node:{machine.node_id}")] == ["resolved"]
    allocation_id = await world.rent(node_id=machine.node_id)
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


async def test_two_machines_under_one_name_are_a_conflict_and_cost_a_turn_a_second(
    world: World, machine: Machine
) -> None:
    # given a customer on a node
    allocation_id = await world.rent(node_id=machine.node_id)
    version = (await world.node(machine.node_id))["version"]
    # when a clone of its disk beats under the same name for three seconds, twenty times a second
    body = json.dumps({"boot_id": "boot-of-the-clone", "seq": 1, "sent_us": 1}).encode()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        await world.nats.publish(f"amends.v1.hb.{machine.node_id}", body)
        await asyncio.sleep(0.05)
    # then the node is quarantined with a case, and few turns were made
    row = await world.node_is(machine.node_id, "quarantined")
    assert row["quarantine_reasons"] == ["identity_conflict"]
    assert row["version"] - version <= 5
    (case,) = await cases(world, f"node:{machine.node_id}")
    assert case["kind"] == "identity_conflict"
    assert case["evidence"]["boot_ids"] == sorted(["boot-of-the-clone", machine.boot_id])
    # and the customer notices nothing
    assert (await world.allocation(allocation_id))["state"] == "active"
    assert await machine.lets_in(allocation_id)
    # when the clone is off, then an operator lets the node back, under the boot id that is heard
    await world.release(allocation_id)
    await world.cleaned(allocation_id)
    await settle(world, "identity_conflict", f"node:{machine.node_id}", "ops.node.return_to_service")
    row = await world.node_is(machine.node_id, "ready")
    assert row["boot_id"] == machine.boot_id


async def test_one_machine_is_one_node(world: World, machine: Machine) -> None:
    # given a node and another one
    other = await world.add_machine()
    ssh = {"host": "localhost", "port": machine.ssh.port, "host_key": machine.ssh.host_key}
    # when its key is registered again under another name, or the other is moved onto it
    twin = world.new_name("twin")
    error = await world.refused("cmd.node.register", {"node_id": twin, "ssh": ssh}, "already_exists")
    assert machine.node_id in error["message"]
    move = {"node_id": other.node_id, "ssh": ssh, "reason": "moved"}
    error = await world.refused("ops.node.update", move, "already_exists")
    assert (machine.node_id in error["message"], error["details"]) == (True, {"field": "ssh.host_key"})
    # then nothing has changed
    assert await world.rows("SELECT 1 FROM public_v1.node WHERE node_id = $1", twin) == []
    assert (await world.node(other.node_id))["state"] == "ready"
    await world.ok("ops.node.quarantine", {"node_id": other.node_id, "reason": "the end"})
    await world.ok("ops.node.retire", {"node_id": other.node_id, "reason": "the end"})
    await other.stop()


async def test_of_two_names_for_a_machine_registered_at_once_one_is_refused_and_told_the_other(world: World) -> None:
    machine = Machine(world, world.new_name("n"))
    await machine.ssh.start()
    ssh = {"host": "127.0.0.1", "port": machine.ssh.port, "host_key": machine.ssh.host_key}
    names = [world.new_name("twin") for _ in range(6)]
    replies = await asyncio.gather(*(world.ask("cmd.node.register", {"node_id": n, "ssh": ssh}) for n in names))
    good = [name for name, reply in zip(names, replies, strict=True) if reply["ok"]]
    assert len(good) == 1, replies
    for reply in replies:
        if not reply["ok"]:
            assert (reply["error"]["code"], good[0] in reply["error"]["message"]) == ("already_exists", True), reply
    # and a retired one makes room for the machine under another name
    await world.ok("ops.node.retire", {"node_id": good[0], "reason": "wrong name"})
    again = world.new_name("n")
    await world.ok("cmd.node.register", {"node_id": again, "ssh": ssh})
    await world.ok("ops.node.retire", {"node_id": again, "reason": "the end"})
    await machine.ssh.stop()


async def test_a_request_for_a_node_that_is_not_there_is_refused_at_once_and_not_for_ever(world: World) -> None:
    # given a name that nobody has yet
    node_id = world.new_name("later")
    data: dict[str, Any] = {"account_id": "acme", "ssh_public_key": CUSTOMER_KEY, "rate_uminor_per_hour": RATE}
    wanted, key = data | {"node_id": node_id}, world.new_key()
    error = await world.refused("cmd.allocation.request", wanted, "not_found", key=key)
    assert error["details"] == {"field": "node_id"}
    # when it is registered, then the same request under the same key is judged anew
    machine = await world.add_machine(node_id)
    reply = await world.ask("cmd.allocation.request", wanted, key=key)
    assert (reply["ok"], reply["duplicate"]) == (True, False)
    allocation_id = reply["data"]["allocation"]["allocation_id"]
    await world.allocation_is(allocation_id, "active")
    await world.release(allocation_id)
    await world.cleaned(allocation_id)
    await machine.stop()


@pytest.mark.parametrize("host", ["::1", "2001:db8::7", "fe80::1%eth0", "::ffff:10.0.0.7"])
async def test_an_ipv6_address_is_taken(world: World, host: str) -> None:
    machine = Machine(world, world.new_name("n"))
    await machine.ssh.start()
    ssh = {"host": host, "port": machine.ssh.port, "host_key": machine.ssh.host_key}
    await world.ok("cmd.node.register", {"node_id": machine.node_id, "ssh": ssh})
    await world.ok("ops.node.retire", {"node_id": machine.node_id, "reason": "the end"})
    await machine.ssh.stop()


@pytest.mark.parametrize("host", [":::1", "1::2::3", "[::1]", "::g", "fe80::1%", "1:2:3:4:5:6:7:8:9", "a:b"])
async def test_what_is_no_ipv6_address_is_refused_with_its_field(world: World, host: str) -> None:
    ssh = {"host": host, "port": 22, "host_key": CUSTOMER_KEY}
    error = await world.refused("cmd.node.register", {"node_id": "n-v6", "ssh": ssh}, "invalid_request")
    assert "host" in error["details"]["field"]


async def test_a_machine_on_ipv6_is_rented(world: World) -> None:
    machine = Machine(world, world.new_name("n"))
    world.machines[machine.node_id] = machine
    machine.ssh.address = "::1"
    try:
        await machine.start()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    ssh = {"host": "::1", "port": machine.ssh.port, "host_key": machine.ssh.host_key}
    await world.ok("cmd.node.register", {"node_id": machine.node_id, "ssh": ssh})
    await world.node_is(machine.node_id, "ready")
    allocation_id = await world.rent(node_id=machine.node_id)
    await world.release(allocation_id)
    await world.cleaned(allocation_id)
    await machine.stop()


async def test_a_database_that_turns_read_only_is_unavailable_and_not_an_error_of_ours(
    world: World, machine: Machine
) -> None:
    # given a database that takes no writes any more (a standby after a failover, say)
    key = world.new_key()
    data = {"account_id": world.new_name("acct"), "currency": "usd"}
    await world.sql.execute("ALTER DATABASE amends SET default_transaction_read_only = on")
    await end_writers(world)
    try:
        # then commands are refused in time, and may be repeated
        reply = await world.ask("cmd.account.create", data, key=key)
        assert (reply["ok"], reply["error"]["code"], reply["error"]["retryable"]) == (False, "db_unavailable", True)
    finally:
        await world.sql.execute("SET default_transaction_read_only = off")
        await world.sql.execute("ALTER DATABASE amends RESET default_transaction_read_only")
        await end_writers(world)
    # when it writes again, then the same request ends well, once
    reply = await world.ask_until("cmd.account.create", data, key=key)
    assert reply["ok"], reply
    assert "Traceback" not in world.log_text()


async def end_writers(world: World) -> None:
    """End the runtime's sessions that write, so that new ones get the database's settings; not the lease's."""
    await world.sql.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^amends:'")
