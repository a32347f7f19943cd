"""The simulated fleet as a process: machines that beat, answer over SSH, break on order, are remembered."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import nats
import pytest
from nats.aio.client import Client

from adapters.embedded.nats import EmbeddedNats
from adapters.simulated.fleet_client import Fleet
from adapters.ssh.client import SshClient
from adapters.ssh.commands import Op, SshCommand, SshEndpoint, SshOutcome
from amends.values.errors import Unavailable
from tests.directories import scratch
from tests.patience import PATIENCE_S

SUFFIX = "0" * 26
USER, ALLOCATION = f"am-{SUFFIX}", f"alloc_{SUFFIX}"
KEY = asyncssh.generate_private_key("ssh-ed25519")
LINE = KEY.export_public_key().decode().strip()


@pytest.fixture
async def base() -> AsyncIterator[Path]:
    base = scratch("amends-fleet-")
    yield base
    shutil.rmtree(base)


@pytest.fixture
async def server(base: Path) -> AsyncIterator[EmbeddedNats]:
    server = EmbeddedNats(base)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: EmbeddedNats) -> AsyncIterator[Client]:
    client = await nats.connect(server.url)
    yield client
    await client.close()


@asynccontextmanager
async def spawned(server: EmbeddedNats, base: Path, nodes: int = 3) -> AsyncIterator[Fleet]:
    fleet = await Fleet.spawn(
        nodes=nodes, nats_url=server.url, client_key_line=LINE, state_dir=base / "fleet", interval_ms=50
    )
    try:
        yield fleet
    finally:
        await fleet.close()


async def step(fleet: Fleet, node: str, op: Op, ssh: SshClient, timeout_ms: int = 5000) -> SshOutcome:
    known = fleet.nodes[node]
    endpoint = SshEndpoint(known["host"], known["port"], "root", known["host_key"])
    command = SshCommand(op, USER, ALLOCATION, "task_1", 1, LINE if op == "key-install" else "")
    return await ssh.run(node, endpoint, command, timeout_ms=timeout_ms)


async def beat(client: Client, node: str) -> dict[str, Any]:
    subscription = await client.subscribe(f"amends.v1.hb.{node}")
    found: dict[str, Any] = json.loads((await subscription.next_msg(timeout=PATIENCE_S)).data)
    await subscription.unsubscribe()
    return found


async def beaten(client: Client, node: str, times: int) -> None:
    """Wait while the node beats so many times."""
    for _ in range(times):
        await beat(client, node)


async def reconcile(client: Client, node: str, task_id: str) -> dict[str, Any]:
    results = await client.subscribe(f"amends.v1.result.{node}")
    task = {"task_id": task_id, "op": "reconcile", "node_epoch": 1, "runtime_epoch": 1}
    await client.publish(f"amends.v1.task.{node}", json.dumps(task).encode())
    found: dict[str, Any] = json.loads((await results.next_msg(timeout=PATIENCE_S)).data)
    await results.unsubscribe()
    return found


async def test_machines_beat_take_steps_and_report_their_users(
    server: EmbeddedNats, client: Client, base: Path
) -> None:
    async with spawned(server, base) as fleet:
        assert list(fleet.nodes) == ["node-1", "node-2", "node-3"]
        assert fleet.nodes["node-2"]["labels"]["site"] == "site-2"
        for node in fleet.nodes:
            assert (await beat(client, node))["boot_id"] == fleet.nodes[node]["boot_id"]
        ssh = SshClient(KEY)
        assert (await step(fleet, "node-1", "user-create", ssh)).status == "done"
        assert await fleet.users("node-1") == [USER]
        assert (await reconcile(client, "node-1", "task_1"))["inventory"]["users"] == [USER]
        assert (await reconcile(client, "node-2", "task_1"))["inventory"]["users"] == []
        (call,) = await fleet.calls("node-1")
        assert (call["op"], call["exit"]) == ("user-create", 0)
        await ssh.close()


async def test_faults_and_outages_happen_on_order(server: EmbeddedNats, client: Client, base: Path) -> None:
    async with spawned(server, base, 1) as fleet:
        ssh = SshClient(KEY, connect_timeout_ms=500)
        await fleet.fault("node-1", "user-create", "exit", exit_status=9)
        assert (await step(fleet, "node-1", "user-create", ssh)).exit_status == 9
        assert (await step(fleet, "node-1", "user-create", ssh)).status == "done"
        await fleet.ssh_stop("node-1")
        assert (await step(fleet, "node-1", "user-lock", ssh)).code == "ssh_connect_failed"
        await fleet.ssh_start("node-1")
        assert (await step(fleet, "node-1", "user-lock", ssh)).status == "done"
        await fleet.refuse_auth("node-1")
        await ssh.close()
        ssh = SshClient(KEY)
        assert (await step(fleet, "node-1", "user-lock", ssh)).code == "ssh_auth_failed"
        await fleet.refuse_auth("node-1", on=False)
        old = dict(fleet.nodes["node-1"])
        await fleet.new_host_key("node-1")
        fleet.nodes["node-1"]["host_key"], new = old["host_key"], fleet.nodes["node-1"]["host_key"]
        assert (await step(fleet, "node-1", "user-lock", ssh)).code == "ssh_host_key_mismatch"
        fleet.nodes["node-1"]["host_key"] = new
        assert (await step(fleet, "node-1", "user-lock", ssh)).status == "done"
        assert fleet.nodes["node-1"]["port"] == old["port"]
        await ssh.close()


async def test_a_silent_agent_is_silent_and_a_reboot_shows_in_the_beat(
    server: EmbeddedNats, client: Client, base: Path
) -> None:
    async with spawned(server, base, 2) as fleet:
        first = (await beat(client, "node-1"))["boot_id"]
        await fleet.agent_stop("node-1")
        await beaten(client, "node-2", 3)  # what node-1 had sent before has arrived
        silent = await client.subscribe("amends.v1.hb.node-1")
        await beaten(client, "node-2", 10)
        assert silent.pending_msgs == 0
        await fleet.agent_start("node-1")
        assert (await beat(client, "node-1"))["boot_id"] == first
        second = await fleet.reboot("node-1")
        assert second != first
        async with asyncio.timeout(PATIENCE_S):
            while (await beat(client, "node-1"))["boot_id"] != second:
                await asyncio.sleep(0)


async def test_a_restarted_fleet_has_the_same_machines(server: EmbeddedNats, client: Client, base: Path) -> None:
    ssh = SshClient(KEY)
    async with spawned(server, base, 2) as fleet:
        await step(fleet, "node-1", "user-create", ssh)
        await fleet.new_host_key("node-2")
        await fleet.reboot("node-1")
        known = dict(fleet.nodes)
    async with spawned(server, base, 2) as fleet:
        assert fleet.nodes == known
        assert await fleet.users("node-1") == [USER]
        assert (await step(fleet, "node-1", "user-remove", ssh)).status == "done"
        assert (await step(fleet, "node-1", "user-create", ssh)).code == "ssh_stale_epoch"  # the tombstone
    await ssh.close()


@pytest.mark.parametrize(
    ("command", "node", "fields", "words"),
    [
        ("dance", "node-1", {}, "cmd must be one of fault"),
        ("users", "node-9", {}, "no node 'node-9'"),
        ("fault", "node-1", {"kind": "exit"}, "needs the op"),
        ("fault", "node-1", {"op": "probe", "kind": "laugh"}, "Invalid enum value"),
    ],
)
async def test_a_wrong_command_is_answered_and_the_fleet_goes_on(
    server: EmbeddedNats, base: Path, command: str, node: str, fields: dict[str, Any], words: str
) -> None:
    async with spawned(server, base, 1) as fleet:
        with pytest.raises(ValueError, match=words):
            await fleet.tell(command, node, **fields)
        assert await fleet.users("node-1") == []


async def test_sigterm_ends_it_and_its_owner_hears_so(server: EmbeddedNats, base: Path) -> None:
    async with spawned(server, base, 1) as fleet:
        os.kill(fleet.pid, signal.SIGTERM)
        await fleet._process.wait()
        with pytest.raises(Unavailable, match=r"ended|gone"):
            await fleet.users("node-1")


async def test_it_ends_when_its_parent_is_killed(server: EmbeddedNats, base: Path) -> None:
    program = (
        "import asyncio, sys, pathlib\n"
        "from adapters.simulated.fleet_client import Fleet\n"
        "async def main():\n"
        "    fleet = await Fleet.spawn(nodes=1, nats_url=sys.argv[1], client_key_line=sys.argv[2],\n"
        "                              state_dir=pathlib.Path(sys.argv[3]))\n"
        "    print(fleet.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, server.url, LINE, str(base / "fleet"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    for _ in range(500):
        if not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text():
            break
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("the fleet goes on without its parent")


def mount_task(base: Path, op: str, number: int) -> dict[str, Any]:
    source = {"type": "bind", "path": str(base / "ns_a")}
    return {
        "task_id": f"task_{number}", "op": op, "node_epoch": 1, "runtime_epoch": 1, "ttl_ms": 60_000, "proto": 2,
        "attachment_id": "attach_a", "attempt_id": "task_a", "namespace_id": "ns_a", "mode": "rw",
        "mount_path": "/mnt/data", "source": source,
    }  # fmt: skip


async def test_machines_mount_below_a_root_of_their_own_break_on_order_and_lose_their_mounts_with_a_boot(
    server: EmbeddedNats, base: Path, client: Client
) -> None:
    (base / "ns_a").mkdir()
    async with spawned(server, base, nodes=2) as fleet:
        results = await client.subscribe("amends.v1.result.node-1")

        async def ask(op: str, number: int) -> dict[str, Any]:
            await client.publish("amends.v1.task.node-1", json.dumps(mount_task(base, op, number)).encode())
            found: dict[str, Any] = json.loads((await results.next_msg(timeout=PATIENCE_S)).data)
            return found

        await beat(client, "node-1")
        mounted = Path(fleet.nodes["node-1"]["root"]) / "mnt" / "data"
        await fleet.mount_fault("node-1", "mount", "fail")
        assert (await ask("mount", 1))["code"] == "mount_failed"
        assert (await ask("mount", 2))["status"] == "ok"
        (mounted / "file").write_bytes(b"kept")
        await fleet.mount_read_only("node-1")
        assert (await ask("probe_mount", 3))["code"] == "ro"
        await fleet.mend_mounts("node-1")
        await fleet.mount_fault("node-1", "unmount", "busy")
        assert (await ask("unmount", 4))["holders"] == ["process 1 (sh): cwd"]
        await fleet.mount_fault("node-1", "unmount", "hang")
        await client.publish("amends.v1.task.node-1", json.dumps(mount_task(base, "unmount", 5)).encode())
        await beaten(client, "node-1", 3)
        assert mounted.is_symlink()
        await fleet.mend_mounts("node-1")
        assert json.loads((await results.next_msg(timeout=PATIENCE_S)).data)["observed"] == {"mounted": False}
        assert (base / "ns_a" / "file").read_bytes() == b"kept"
        # a fault that no mount can have is refused
        with pytest.raises(ValueError, match="faults of mount are fail"):
            await fleet.mount_fault("node-1", "mount", "busy")


async def test_a_machine_that_boots_again_has_nothing_mounted(server: EmbeddedNats, base: Path, client: Client) -> None:
    (base / "ns_a").mkdir()
    async with spawned(server, base, nodes=1) as fleet:
        results = await client.subscribe("amends.v1.result.node-1")
        await beat(client, "node-1")
        await client.publish("amends.v1.task.node-1", json.dumps(mount_task(base, "mount", 1)).encode())
        assert json.loads((await results.next_msg(timeout=PATIENCE_S)).data)["status"] == "ok"
        mounted = Path(fleet.nodes["node-1"]["root"]) / "mnt" / "data"
        assert mounted.is_symlink()
        await fleet.reboot("node-1")
        await beat(client, "node-1")
        assert mounted.is_dir()
        assert not mounted.is_symlink()
