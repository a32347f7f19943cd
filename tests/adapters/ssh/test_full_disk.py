"""A customer that has filled the disk: it is locked out all the same, on a file system that has no byte left."""

import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.adapters.ssh.machines import COPY_ETC, Customer, OpenSsh, until
from tests.patience import PATIENCE_S

Daemon = Callable[..., Awaitable[OpenSsh]]
# It fills what there is, and goes on filling: whatever becomes free while it lives is taken in a moment.
FILL = "(while :; do cat /dev/zero >>room; done) >filling 2>&1 </dev/null & sleep 1"


def small_world(disk: Path, state: Path) -> str:
    """Homes, accounts and what a node remembers of steps, all on one small file system that only this daemon sees."""
    accounts = COPY_ETC.format(to=f"'{disk}/etc'")
    places = f"'{disk}/home' '{disk}/etc' '{disk}/state'"
    return (
        f"mkdir -p '{disk}' '{state}'\nmount -t tmpfs -o size=24m,mode=755 amends-test '{disk}'\nmkdir {places}\n"
        f"{accounts}\nmount --bind '{disk}/etc' /etc\nmount --bind '{disk}/home' /home\n"
        f"mount --bind '{disk}/state' '{state}'"
    )


def free_bytes(machine: OpenSsh, disk: Path) -> int:
    """What is left on the disk, asked inside of the daemon's own file systems."""
    ask = ["nsenter", "-m", "-t", str(machine.pid), "df", "-P", "-B1", str(disk)]
    done = subprocess.run(ask, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    return int(done.stdout.splitlines()[1].split()[3])


async def log_in_and_run(customer: Customer, command: str) -> None:
    endpoint = customer.machine.endpoint
    known: Any = ([asyncssh.import_public_key(endpoint.host_key)], [], [])
    async with asyncssh.connect(
        endpoint.host, endpoint.port, username=customer.user, client_keys=[customer.key], known_hosts=known,
        config=None, agent_path=None,
    ) as connection:  # fmt: skip
        await connection.run(command, check=True, stdin=asyncssh.DEVNULL)


async def test_a_customer_who_fills_the_disk_is_locked_out_and_the_lock_is_remembered(
    daemon: Daemon, tmp_path: Path
) -> None:
    # given a machine with little room, whose customer has taken all of it and goes on
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True, timeout=PATIENCE_S).returncode:
        pytest.skip("mount namespaces are not permitted here")
    disk = tmp_path / "disk"
    machine = await daemon(world=small_world(disk, tmp_path / "state"))
    customer = Customer(machine)
    assert await customer.exits("user-create") == 0
    assert await customer.exits("key-install") == 0
    await log_in_and_run(customer, FILL)
    await until(lambda: free_bytes(machine, disk) == 0, "the disk is full")
    # when an older runtime asks, then nothing happens
    assert await customer.exits("user-lock", epoch=0) == 75
    assert free_bytes(machine, disk) == 0
    # when it is locked out
    outcome = await customer.step("user-lock", epoch=2)
    # then nobody gets in, and the step is done: epoch and tombstone stand
    assert (outcome.exit_status, outcome.message) == (0, "")
    assert not await customer.can_log_in()
    assert await customer.exits("key-install", epoch=1) == 75  # the epoch
    assert await customer.exits("key-install", epoch=2) == 75  # the tombstone
    # and the rest of the cleanup finds room as well
    assert await customer.exits("user-remove", epoch=2) == 0
    assert free_bytes(machine, disk) > 0


async def test_what_is_reserved_is_real_and_goes_with_the_customer(openssh: OpenSsh, tmp_path: Path) -> None:
    customer = Customer(openssh)
    assert await customer.exits("user-create") == 0
    reserve = tmp_path / "state" / customer.allocation / "reserve"
    assert reserve.stat().st_blocks * 512 >= 256 * 1024  # no hole
    assert await customer.exits("user-create") == 0  # done twice it is done once
    assert await customer.exits("user-remove") == 0
    assert not reserve.exists()
