"""What every machine that the runtime rents out must do: one suite, on the simulated node and on OpenSSH."""

import asyncio

import asyncssh
import msgspec
import pytest

from adapters.embedded.ports import free_port
from adapters.ssh.client import SshClient
from adapters.ssh.commands import Op, probe_command
from tests.adapters.ssh.machines import Customer, Machine, until


async def test_a_probe_of_a_good_node_is_done(machine: Machine) -> None:
    outcome = await machine.client.run("n1", machine.endpoint, probe_command(1), timeout_ms=10_000)
    assert (outcome.status, outcome.code, outcome.exit_status, outcome.message) == ("done", "", 0, "")
    assert outcome.may_have_run
    assert 0 < outcome.duration_us < 10_000_000


async def test_a_user_is_created_once_however_often_it_is_asked(customer: Customer) -> None:
    assert not customer.exists
    for _ in range(2):
        assert await customer.exits("user-create") == 0
        assert customer.exists


async def test_the_customer_logs_in_with_the_key_and_no_longer_after_the_lock(customer: Customer) -> None:
    await customer.exits("user-create")
    assert not await customer.can_log_in()
    for _ in range(2):
        assert await customer.exits("key-install") == 0
        assert await customer.can_log_in()
    for _ in range(2):
        assert await customer.exits("user-lock") == 0
        assert not await customer.can_log_in()
    assert customer.exists


async def test_a_removed_customer_is_gone_and_removing_again_is_done_too(customer: Customer) -> None:
    await customer.exits("user-create")
    await customer.exits("key-install")
    for _ in range(2):
        assert await customer.exits("user-remove") == 0
        assert not customer.exists
    assert not await customer.can_log_in()


@pytest.mark.parametrize("op", ["user-lock", "user-remove"])
async def test_undoing_what_never_was_is_done(customer: Customer, op: Op) -> None:
    assert await customer.exits(op) == 0
    assert not customer.exists


async def test_no_key_is_installed_for_a_user_that_is_not_there(customer: Customer) -> None:
    outcome = await customer.step("key-install")
    assert (outcome.status, outcome.code, outcome.exit_status) == ("failed", "ssh_step_failed", 1)
    assert "there is no" in outcome.message


@pytest.mark.parametrize("late", ["user-create", "key-install"])
async def test_a_late_step_of_an_undone_attempt_is_refused(customer: Customer, late: Op) -> None:
    await customer.exits("user-create")
    await customer.exits("user-remove")
    outcome = await customer.step(late)
    assert (outcome.status, outcome.code, outcome.exit_status) == ("failed", "ssh_stale_epoch", 75)
    assert "undone" in outcome.message
    assert not customer.exists


async def test_an_attempt_undone_before_it_came_is_refused_and_another_one_is_not(customer: Customer) -> None:
    await customer.exits("user-remove", attempt="attempt_1")
    assert await customer.exits("user-create", attempt="attempt_1") == 75
    assert await customer.exits("user-create", attempt="attempt_2") == 0
    assert customer.exists


async def test_a_locked_customer_does_not_come_back_through_a_late_key(customer: Customer) -> None:
    await customer.exits("user-create")
    await customer.exits("user-lock")
    assert await customer.exits("key-install") == 75
    assert not await customer.can_log_in()


@pytest.mark.parametrize("op", ["user-create", "key-install", "user-lock", "user-remove"])
async def test_a_lower_epoch_than_the_highest_seen_is_refused(customer: Customer, op: Op) -> None:
    await customer.exits("user-create", epoch=7)
    await customer.exits("key-install", epoch=7)
    outcome = await customer.step(op, epoch=6)
    assert (outcome.status, outcome.code, outcome.exit_status) == ("failed", "ssh_stale_epoch", 75)
    assert "highest seen 7" in outcome.message
    assert customer.exists
    assert await customer.can_log_in()
    assert await customer.exits("user-remove", epoch=8) == 0


async def test_the_highest_epoch_outlives_the_user(customer: Customer) -> None:
    await customer.exits("user-create", epoch=2**33)
    await customer.exits("user-remove", epoch=2**33)
    assert await customer.exits("user-create", attempt="attempt_2", epoch=2**33 - 1) == 75
    assert not customer.exists


async def test_a_foreign_user_of_the_same_name_is_never_touched(customer: Customer) -> None:
    customer.machine.add_foreign(customer.user)
    for op in ("user-create", "key-install", "user-lock", "user-remove"):
        outcome = await customer.step(op, attempt=f"attempt_{op}")
        assert (outcome.status, outcome.exit_status) == ("failed", 1)
        assert "not made by this allocation" in outcome.message
        assert customer.exists


@pytest.mark.parametrize("op", ["user-lock", "user-remove"])
async def test_the_customers_processes_are_ended(customer: Customer, op: Op) -> None:
    await customer.exits("user-create")
    await customer.machine.start_process(customer.user)
    assert await customer.machine.has_processes(customer.user)
    assert await customer.exits(op) == 0
    assert not await customer.machine.has_processes(customer.user)


async def test_a_mount_below_the_home_stops_the_removal_until_it_is_gone(customer: Customer) -> None:
    await customer.exits("user-create")
    if why := customer.machine.mount_below_home(customer.user):
        pytest.skip(why)
    for _ in range(2):
        outcome = await customer.step("user-remove")
        assert (outcome.status, outcome.code, outcome.exit_status) == ("failed", "ssh_retryable", 74)
        assert "mounted below the home" in outcome.message
        assert customer.exists
    customer.machine.unmount(customer.user)
    assert await customer.exits("user-remove") == 0
    assert not customer.exists


async def test_another_host_key_of_any_type_is_a_mismatch_and_nothing_runs(customer: Customer) -> None:
    for key in (
        asyncssh.generate_private_key("ssh-ed25519"),
        asyncssh.generate_private_key("ecdsa-sha2-nistp256"),
        asyncssh.generate_private_key("ssh-rsa", key_size=3072),
    ):
        other = key.export_public_key().decode().strip()
        customer.machine.endpoint = msgspec.structs.replace(customer.machine.endpoint, host_key=other)
        outcome = await customer.step("user-create")
        assert (outcome.status, outcome.code) == ("failed", "ssh_host_key_mismatch")
        assert not outcome.may_have_run
    assert not customer.exists


async def test_a_login_that_is_refused_cannot_have_run(customer: Customer) -> None:
    stranger = SshClient(asyncssh.generate_private_key("ssh-ed25519"))
    customer.machine.client, known = stranger, customer.machine.client
    outcome = await customer.step("user-create")
    customer.machine.client = known
    assert (outcome.status, outcome.code, outcome.may_have_run) == ("failed", "ssh_auth_failed", False)
    assert not customer.exists


async def test_a_port_where_nobody_listens_cannot_have_run(customer: Customer) -> None:
    customer.machine.endpoint = msgspec.structs.replace(customer.machine.endpoint, port=free_port())
    outcome = await customer.step("user-create")
    assert (outcome.status, outcome.code, outcome.may_have_run) == ("failed", "ssh_connect_failed", False)


async def test_no_customer_ever_gets_the_uid_of_an_earlier_one(machine: Machine) -> None:
    # given customers who came and went one after the other, and one who stayed
    given = []
    for goes in (True, False, True, True):
        customer = Customer(machine)
        assert await customer.exits("user-create") == 0
        assert await customer.exits("user-create") == 0  # again: the same user, the same uid
        given.append(machine.uid_of(customer.user))
        if goes:
            assert await customer.exits("user-remove") == 0
    # then each had a uid above all before
    assert given == sorted(set(given))
    assert given[0] >= 1000


async def test_a_node_without_a_free_uid_says_so_and_still_removes(machine: Machine) -> None:
    # given a customer, and no uid for another one
    earlier, customer = Customer(machine), Customer(machine)
    assert await earlier.exits("user-create") == 0
    machine.use_up_uids()
    # then neither a probe nor a set-up is good, and both say why
    probe = await machine.client.run("n1", machine.endpoint, probe_command(1), timeout_ms=10_000)
    for outcome in (probe, await customer.step("user-create")):
        assert (outcome.status, outcome.exit_status) == ("failed", 1)
        assert "no uid is left" in outcome.message
    assert not customer.exists
    # and whoever is there is served and removed as ever
    for op in ("user-create", "key-install", "user-lock", "user-remove"):
        assert await earlier.exits(op) == 0
    assert not earlier.exists


async def test_the_deadline_inside_a_step_leaves_it_unknown(customer: Customer) -> None:
    # given a connection that is open already, so that the deadline falls into the step
    machine = customer.machine
    assert (await machine.client.run("n1", machine.endpoint, probe_command(1), timeout_ms=20_000)).status == "done"
    async with customer.machine.stalled("user-create"):
        outcome = await customer.step("user-create", timeout_ms=1500)
    assert (outcome.status, outcome.code, outcome.exit_status) == ("unknown", "ssh_timeout", None)
    assert outcome.may_have_run
    assert outcome.duration_us >= 1_500_000
    assert customer.machine.client.idle_connections == 0
    assert await customer.exits("user-remove") == 0  # what was only late on a real node ends here
    assert not customer.exists


async def test_a_connection_lost_inside_a_step_leaves_it_unknown_and_the_undo_wins(
    customer: Customer,
) -> None:
    machine = customer.machine
    async with machine.stalled("user-create"):
        step = asyncio.create_task(customer.step("user-create"))
        await until(lambda: machine.has_steps(customer), "the step has reached the machine")
        machine.cut_connections()
        outcome = await step
        assert (outcome.status, outcome.code, outcome.exit_status) == ("unknown", "ssh_step_failed", None)
        assert outcome.may_have_run
    # The step cut off from us may still run, before or after its undo: nothing is left of it (R02).
    assert await customer.exits("user-remove") == 0
    await until(lambda: not machine.has_steps(customer), "the late step has ended")
    assert not customer.exists
    assert await customer.exits("user-create") == 75
