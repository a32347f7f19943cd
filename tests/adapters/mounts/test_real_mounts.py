"""Real bind mounts of the kernel, by mount(8) and umount(8): what the table shows, who is in the way, what is left."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from adapters.nats.agent_children import Children
from adapters.nats.agent_machine import holders
from adapters.nats.agent_messages import MountTask, Observed, TaskResult
from adapters.nats.agent_mounting import Mounting
from adapters.nats.agent_mounts import RealMounts
from adapters.nats.agent_store import AgentStore
from tests.adapters.ssh.machines import needs_root
from tests.patience import PATIENCE_S

A = "attach_a"


class Real:
    """An agent's mounts on this machine, below a directory of /mnt that goes again."""

    def __init__(self, base: Path) -> None:
        self.base, self.path, self.source = base, base / "data", base / "source"
        self.source.mkdir()
        (base / "state").mkdir()
        self.mounts = RealMounts(base / "state")
        self.store = AgentStore(base / "state")
        self.mounting = Mounting(self.store, self.mounts)
        self.count = 0

    async def do(self, op: str, attempt: str = "task_a", mode: Literal["ro", "rw"] = "rw", **more: Any) -> TaskResult:
        fields = {"mount_path": str(self.path), "source": {"type": "bind", "path": str(self.source)}} | more
        self.count += 1
        task = MountTask(fields.get("attachment_id", A), attempt, mode, fields["mount_path"], fields["source"])
        return await self.mounting.do(f"task_{self.count}", op, task, lambda: PATIENCE_S)

    def line(self) -> str:
        found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {self.path} " in line]
        return found[-1] if found else ""


@pytest.fixture
def real() -> Iterator[Real]:
    Path("/mnt").mkdir(exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="amends-test-", dir="/mnt"))
    found = Real(base)
    yield found
    found.store.close()
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if (path := line.split(" ")[4]).startswith(f"{base}/"):
            subprocess.run(["umount", "--lazy", path], check=True)
    subprocess.run(["rm", "-r", "--one-file-system", str(base)], check=True)


@needs_root
async def test_a_directory_is_bound_without_set_uid_and_devices_probed_and_unmounted(real: Real) -> None:
    assert await real.do("mount") == TaskResult("task_1", "ok", "", "", [], Observed(mounted=True, mode="rw"))
    assert {"rw", "nosuid", "nodev"} <= set(real.line().split(" ")[5].split(","))
    (real.path / "file").write_bytes(b"kept")
    assert (await real.do("probe_mount")).status == "ok"
    assert (await real.do("mount")).status == "ok", "it is there already"
    unmounted = await real.do("unmount")
    assert (unmounted.status, unmounted.observed) == ("ok", Observed(mounted=False))
    assert real.line() == ""
    assert not real.path.exists(), "the directory was made for it"
    assert (real.source / "file").read_bytes() == b"kept"
    assert (await real.do("unmount")).status == "noop"
    assert list((real.base / "state").glob("mounting-*")) == []


@needs_root
async def test_read_only_is_read_only_and_its_directory_stays_if_it_was_there(real: Real) -> None:
    real.path.mkdir()
    assert (await real.do("mount", mode="ro")).observed == Observed(mounted=True, mode="ro")
    with pytest.raises(OSError, match="Read-only"):
        (real.path / "file").write_bytes(b"")
    assert (await real.do("probe_mount", mode="rw")).code == "ro"
    assert (await real.do("unmount")).status == "ok"
    assert real.path.is_dir()


@needs_root
async def test_a_process_that_holds_it_is_named_and_nothing_is_forced(real: Real) -> None:
    await real.do("mount")
    (real.path / "file").write_bytes(b"x")
    program = "import os, sys; os.chdir(sys.argv[1]); print(flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(real.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    busy = await real.do("unmount")
    assert (busy.status, busy.code, busy.observed) == ("error", "busy", Observed(mounted=True, mode="rw"))
    assert busy.holders is not None
    assert [one for one in busy.holders if one.startswith(f"process {child.pid} (") and one.endswith(": cwd")]
    assert real.line()
    child.communicate()
    assert (await real.do("unmount")).status == "ok"


@needs_root
async def test_a_mount_below_it_is_named_as_what_holds_it(real: Real) -> None:
    (real.source / "deeper").mkdir()
    await real.do("mount")
    subprocess.run(["mount", "-t", "tmpfs", "none", f"{real.path}/deeper"], check=True)
    busy = await real.do("unmount")
    assert (busy.code, busy.holders) == ("busy", [f"mount {real.path}/deeper"])


@needs_root
async def test_a_foreign_mount_is_reported_and_stays(real: Real) -> None:
    real.path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(real.path)], check=True)
    assert ((await real.do("mount")).code, (await real.do("unmount")).status) == ("path_taken", "noop")
    assert str(real.path) in await real.mounting.foreign()
    assert " tmpfs " in real.line()


@needs_root
async def test_a_foreign_mount_over_ours_is_not_taken_away(real: Real) -> None:
    await real.do("mount")
    subprocess.run(["mount", "-t", "tmpfs", "none", str(real.path)], check=True)
    over = await real.do("unmount")
    assert (over.code, over.observed) == ("path_taken", Observed(mounted=True, mode="rw"))
    assert " tmpfs " in real.line()


@needs_root
async def test_one_that_was_unmounted_by_hand_is_missing_and_gone(real: Real) -> None:
    await real.do("mount")
    subprocess.run(["umount", str(real.path)], check=True)
    missing = await real.do("probe_mount")
    assert (missing.code, missing.observed) == ("missing", Observed(mounted=False))
    assert (await real.do("unmount")).status == "noop"


@needs_root
async def test_a_server_that_is_not_there_leaves_nothing(real: Real) -> None:
    source = {"type": "nfs", "server": "127.0.0.1", "export": "/none", "options": "soft,retry=0,timeo=5,retrans=1"}
    failed = await real.do("mount", source=source)
    assert (failed.code, failed.observed) == ("mount_failed", Observed(mounted=False))
    assert failed.message
    assert not real.path.exists()


@needs_root
async def test_a_symbolic_link_on_the_way_is_refused(real: Real) -> None:
    (real.base / "link").symlink_to("/tmp")
    assert (await real.do("mount", mount_path=f"{real.base}/link/data")).code == "path_not_allowed"
    assert (await real.do("mount", mount_path=f"{real.base}/a b/ü")).status == "ok", "spaces are escaped in the table"
    assert (await real.do("unmount")).status == "ok"


def test_the_table_of_an_nfs_client_is_read(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "90 22 0:50 / /data/a\\040b rw,nosuid,nodev shared:9 - nfs4 storage:/srv/ns_a rw,vers=4.2\n"
        "91 22 0:51 / /mnt/v6 rw,nosuid,nodev - nfs4 [fd00::1]:/ ro\n"
        "92 22 8:1 /srv/b /srv/c ro,nosuid - ext4 /dev/sda1 rw\n"
    )
    mounts = RealMounts(tmp_path, table)
    _, first, second, third = mounts.table()
    assert (first.path, first.names, first.mode, first.safe) == (
        "/data/a b",
        ("0:50 /", "storage:/srv/ns_a"),
        "rw",
        True,
    )
    assert (second.names[1], second.mode) == ("[fd00::1]:/", "ro")
    assert (third.names, third.mode, third.safe) == (("8:1 /srv/b",), "ro", False)
    assert mounts.name_of({"type": "nfs", "server": "storage", "export": "/srv/ns_a/"}) == first.names[1]
    assert mounts.name_of({"type": "nfs", "server": "fd00::1", "export": "/"}) == second.names[1]
    assert mounts.name_of({"type": "bind", "path": "/usr"}) == "8:1 " + os.path.realpath("/usr")
    assert mounts.foreign({"/mnt/v6"}) == ["/data/a b"]


async def test_a_command_that_does_not_end_is_killed_and_one_that_cannot_be_is_still_seen(tmp_path: Path) -> None:
    children = Children(tmp_path)
    assert await children.run("a", ("true",), PATIENCE_S) == ""
    assert await children.run("a", ("sh", "-c", "echo no >&2; exit 3"), PATIENCE_S) == "no"
    assert "killed" in await children.run("a", ("sleep", "1000"), 0.2)
    assert not children.pending("a")
    # a helper of the command's own group that gets away, as one held in the kernel does
    with pytest.raises(TimeoutError):
        await children.run(
            "a", ("sh", "-c", "setsid sleep 1000 2>/dev/null & echo $! >$0; sleep 1000", f"{tmp_path}/pid"), 0.5
        )
    assert children.pending("a")
    assert not children.pending("b")
    with pytest.raises(TimeoutError, match="earlier"):
        await children.run("a", ("true",), PATIENCE_S)
    # then an agent that was started again sees it as well, until it has ended
    again = Children(tmp_path)
    assert again.pending("a")
    os.kill(int((tmp_path / "pid").read_text()), 9)
    async with asyncio.timeout(PATIENCE_S):
        while again.pending("a"):
            await asyncio.sleep(0.01)
    assert await again.run("a", ("true",), PATIENCE_S) == ""


def test_open_files_and_mapped_ones_hold_a_mount(tmp_path: Path) -> None:
    found: list[str] = []
    with (tmp_path / "file").open("w"):
        holders(str(tmp_path), found)
    assert [one for one in found if one.startswith(f"process {os.getpid()} (")] == found
    mapped: list[str] = []
    holders(os.path.realpath(Path(os.__file__).parent / "lib-dynload"), mapped)
    assert any(one.endswith(": a mapped file") for one in mapped)
