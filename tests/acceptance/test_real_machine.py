"""The whole road on a stock OpenSSH server with real users: rent, log in, break the key, release, nothing left."""

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import asyncssh
import pytest

from tests.acceptance.machine import CUSTOMER, user_of
from tests.acceptance.records import all_is_well
from tests.acceptance.world import World, until
from tests.adapters.ssh.machines import HOMES, OpenSsh, steps_of, why_no_openssh

NODE_STATE = Path("/var/lib/amends")
# A real login costs more than the acceptance profile's 300 ms on a busy machine; the machine is not what is tested.
CONFIG = "[timing]\nprobe_timeout_ms = 5000\nssh_step_timeout_ms = 20000\n"


class RealNode:
    """A stock sshd that lets the runtime's key in, and heartbeats."""

    def __init__(self, world: World, directory: Path, *, for_root: str = "") -> None:
        self.world = world
        self.sshd = OpenSsh(directory, NODE_STATE, use_pam=False, for_root=for_root)
        (directory / "root.pub").write_text(world.endpoints["ssh_public_key"] + "\n")
        self.allocations: list[str] = []
        self._beats: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.register()
        await self.world.node_is("real", "ready")

    async def register(self) -> None:
        await self.sshd.ready()
        self._beats = asyncio.create_task(self._beat())
        where = self.sshd.endpoint
        ssh = {"host": where.host, "port": where.port, "host_key": where.host_key}
        await self.world.ok("cmd.node.register", {"node_id": "real", "ssh": ssh})

    async def failed_probe(self) -> str:
        """Wait for a probe that was not good; what `amends why` tells of the node."""

        async def probed() -> bool:
            query = "SELECT FROM public_v1.step WHERE entity = 'node:real' AND name = 'ssh.probe' AND state = 'failed'"
            return bool(await self.world.rows(query))

        await until(probed, "it is probed in vain")
        assert (await self.world.node("real"))["state"] == "registered"
        return await self.world.amends("why", "real")

    async def _beat(self) -> None:
        for seq in range(1_000_000):
            body = {"boot_id": "boot-1", "seq": seq, "sent_us": time.time_ns() // 1000}
            await self.world.nats.publish("amends.v1.hb.real", json.dumps(body).encode())
            await asyncio.sleep(0.1)

    async def lets_in(self, allocation_id: str) -> bool:
        where = self.sshd.endpoint
        known: tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]
        known = ([asyncssh.import_public_key(where.host_key)], [], [])
        try:
            async with asyncssh.connect(
                where.host, where.port, username=user_of(allocation_id), client_keys=[CUSTOMER], known_hosts=known,
                config=None, agent_path=None,
            ) as connection:  # fmt: skip
                return (await connection.run("id -un", check=True)).stdout == user_of(allocation_id) + "\n"
        except (asyncssh.PermissionDenied, asyncssh.ConnectionLost):
            return False

    async def customers(self) -> set[str]:
        """The users of this runtime's rentals that are on the machine, which may have others' beside them."""
        asked = await self.world.rows("SELECT allocation_id FROM public_v1.allocation")
        return self.sshd.users() & {user_of(row["allocation_id"]) for row in asked}

    async def stop(self) -> None:
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)
        await self.sshd.close()
        for allocation_id in self.allocations:
            while steps_of(allocation_id):
                await asyncio.sleep(0.05)
            user = user_of(allocation_id)
            subprocess.run(["userdel", "-f", user], check=False, capture_output=True)
            with suppress(OSError):
                shutil.rmtree(HOMES / user)
            shutil.rmtree(NODE_STATE / allocation_id, ignore_errors=True)


@pytest.fixture
async def machine(request: pytest.FixtureRequest, state_dir: Path, tmp_path: Path) -> AsyncIterator[RealNode]:
    """A machine that is not registered; a parameter stands among the settings of the runtime's login."""
    if why := why_no_openssh():
        pytest.skip(why)
    world = World(state_dir, CONFIG)
    await world.start()
    await world.connect()
    await world.account("acme")
    node = RealNode(world, tmp_path, for_root=getattr(request, "param", ""))
    try:
        yield node
        await all_is_well(world)
    finally:
        await node.stop()
        await world.stop()


@pytest.fixture
async def real(machine: RealNode) -> RealNode:
    """A machine that is ready."""
    await machine.start()
    return machine


async def test_a_rental_on_a_stock_machine_from_the_first_login_to_the_last_trace_of_the_user(real: RealNode) -> None:
    world = real.world
    # when it is rented
    allocation_id = await world.rent(node_id="real")
    real.allocations.append(allocation_id)
    # then the customer is a real user who can log in with his key, and only with it
    assert user_of(allocation_id) in real.sshd.users()
    assert await real.lets_in(allocation_id)
    # when it is released while he has a process running
    real.sshd.spawn(user_of(allocation_id), "sleep", "600")
    await world.release(allocation_id)

    async def clean() -> bool:
        row = await world.allocation(allocation_id)
        return row["state"] == "released" and not row["cleanup_pending"]

    await until(clean, "released and clean", 30)
    # then nothing of him is left: user, home, process, way in
    assert user_of(allocation_id) not in real.sshd.users()
    assert not (HOMES / user_of(allocation_id)).exists()
    assert not await real.sshd.has_processes(user_of(allocation_id))
    assert not await real.lets_in(allocation_id)


async def test_a_set_up_cut_off_in_its_middle_is_undone_and_its_late_command_makes_no_user(real: RealNode) -> None:
    world = real.world
    # given a user-create that is held up on the machine, and a connection that is lost meanwhile
    async with real.sshd.stalled("user-create"):
        cut_off = await world.request(node_id="real")
        real.allocations.append(cut_off)

        async def has_begun() -> bool:
            return bool(steps_of(cut_off))

        await until(has_begun, "the step has reached the machine")
        real.sshd.cut_connections()
    # then the set-up has failed, and was undone on the machine
    row = await world.allocation_is(cut_off, "failed", timeout_s=60)
    assert row["failure_code"] == "ssh_step_failed"
    kinds = await world.rows(
        "SELECT compensation_type, outcome FROM public_v1.compensation WHERE matrix_row = 'R02' ORDER BY sequence"
    )
    assert [(kind["compensation_type"], kind["outcome"]) for kind in kinds] == [
        ("reverse", "success"), ("rollback", "success"),
    ]  # fmt: skip
    # and whichever of the two came first to the lock, no user is left
    assert await real.customers() == set()
    assert not (HOMES / user_of(cut_off)).exists()
    # and the machine can be rented again
    again = await world.rent(node_id="real")
    real.allocations.append(again)
    await world.release(again)

    async def clean() -> bool:
        return not (await world.allocation(again))["cleanup_pending"] and not await real.customers()

    await until(clean, "clean again", 30)


@pytest.mark.parametrize(
    "machine", ['ForceCommand echo "Managed by others."', "ForceCommand cat >/dev/null"], indirect=True
)
async def test_a_machine_with_a_forced_command_that_swallows_the_steps_is_never_rented(machine: RealNode) -> None:
    world = machine.world
    await machine.register()
    waiting = await world.request(node_id="real")
    machine.allocations.append(waiting)
    # then whoever asks reads why, and who waits for it is told that there is none and pays nothing
    assert "ssh.probe  ssh_not_run: exit status 0, but the script did not run" in await machine.failed_probe()
    row = await world.allocation_is(waiting, "failed")
    assert (row["failure_code"], row["billing_state"]) == ("no_capacity", "none")
    assert (await world.node("real"))["state"] == "registered"


@pytest.mark.parametrize("machine", ['ForceCommand echo Welcome; eval "$SSH_ORIGINAL_COMMAND"'], indirect=True)
async def test_a_forced_command_that_lets_the_steps_run_carries_a_rental(machine: RealNode) -> None:
    world = machine.world
    await machine.start()
    allocation_id = await world.rent(node_id="real")
    machine.allocations.append(allocation_id)
    assert await machine.lets_in(allocation_id)
    await world.release(allocation_id)
    await world.cleaned(allocation_id, 30)
    assert user_of(allocation_id) not in machine.sshd.users()


async def test_a_machine_that_refuses_customers_is_not_ready_until_it_lets_them_in(machine: RealNode) -> None:
    # given a machine on which nobody but root may log in
    world = machine.world
    await machine.sshd.ready()
    await machine.sshd.reconfigure("AllowUsers root")
    await machine.register()
    assert "amends: customers cannot log in: sshd's AllowUsers leave out am-" in await machine.failed_probe()
    # when it lets customers in, then it is rented, and the customer gets in
    await machine.sshd.reconfigure("AllowUsers root am-*")
    await world.node_is("real", "ready")
    allocation_id = await world.rent(node_id="real")
    machine.allocations.append(allocation_id)
    assert await machine.lets_in(allocation_id)
    await world.release(allocation_id)
    await world.cleaned(allocation_id, 30)
    # when it refuses them again under the next one, then that one is told so instead of billed
    await machine.sshd.reconfigure("AllowUsers root")
    refused = await world.request(node_id="real")
    machine.allocations.append(refused)
    row = await world.allocation_is(refused, "failed")
    assert (row["failure_code"], row["billing_state"], row["cleanup_pending"]) == ("ssh_step_failed", "none", False)
    assert user_of(refused) not in machine.sshd.users()
