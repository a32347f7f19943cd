"""The machines that the contract suite runs on: a simulated node, and a real OpenSSH server on this machine.

Both offer what a test needs to see and to break, and take away everything they made. Users are named `am-`
and 26 characters that begin with `0test`, so that no real customer can be met.
"""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import socket
import string
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import asyncssh
import pytest

from adapters.embedded.ports import free_port
from adapters.simulated.node_users import User
from adapters.simulated.ssh_node import Fault, SimulatedNode
from adapters.ssh.client import SshClient
from adapters.ssh.commands import Op, SshCommand, SshEndpoint, SshOutcome
from tests.parallel import first_uid
from tests.patience import PATIENCE_S

HOMES = Path("/home")
# The accounts' files as they are, without the locks of those who change them at this moment, which come and go.
COPY_ETC = "tar -C /etc --exclude='*.lock' -cf - . 2>/dev/null | tar -C {to} -xpf -"
# Accounts and mounts are made by root or not at all; what the scripts decide is tested without. CI is root.
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the scripts make users; CI is root")
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin:/usr/local/sbin")


def why_no_openssh() -> str:
    """Say what keeps this machine from running the suite on OpenSSH; empty if nothing does."""
    if SSHD is None:
        return "OpenSSH's sshd is not installed here"
    if os.geteuid() != 0:
        return "OpenSSH with real users needs root"
    return ""


def new_suffix() -> str:
    """Give 26 characters that no other test has used."""
    return "0test" + "".join(secrets.choice(string.digits + string.ascii_lowercase) for _ in range(21))


async def until(holds: Callable[[], object], what: str) -> None:
    """Wait for a condition, not for a time."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S} s"
        await asyncio.sleep(0.01)


class Machine(Protocol):
    """What the suite asks of a machine."""

    name: str
    endpoint: SshEndpoint
    client: SshClient

    def will_make(self, user: str) -> None: ...
    def users(self) -> set[str]: ...
    def uid_of(self, user: str) -> int: ...
    def use_up_uids(self) -> None: ...
    def add_foreign(self, user: str) -> None: ...
    def has_steps(self, customer: "Customer") -> bool: ...
    async def start_process(self, user: str) -> None: ...
    async def has_processes(self, user: str) -> bool: ...
    def mount_below_home(self, user: str) -> str: ...
    def unmount(self, user: str) -> None: ...
    def cut_connections(self) -> None: ...
    def stalled(self, op: Op) -> AbstractAsyncContextManager[None, bool | None]: ...
    async def close(self) -> None: ...


class Customer:
    """One allocation's customer on a machine, with the steps as methods' arguments."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        suffix = new_suffix()
        self.user = f"am-{suffix}"
        self.allocation = f"alloc_{suffix}"
        self.key = asyncssh.generate_private_key("ssh-ed25519", comment="customer's own")
        self.public = self.key.export_public_key().decode().strip()
        machine.will_make(self.user)

    async def step(self, op: Op, *, attempt: str = "attempt_1", epoch: int = 1, timeout_ms: int = 20_000) -> SshOutcome:
        line = self.public if op == "key-install" else ""
        command = SshCommand(op, self.user, self.allocation, attempt, epoch, line)
        return await self.machine.client.run("n1", self.machine.endpoint, command, timeout_ms=timeout_ms)

    async def exits(self, op: Op, *, attempt: str = "attempt_1", epoch: int = 1) -> int | None:
        return (await self.step(op, attempt=attempt, epoch=epoch)).exit_status

    @property
    def exists(self) -> bool:
        return self.user in self.machine.users()

    async def can_log_in(self) -> bool:
        try:
            async with (
                asyncio.timeout(PATIENCE_S),
                asyncssh.connect(
                    self.machine.endpoint.host,
                    self.machine.endpoint.port,
                    username=self.user,
                    client_keys=[self.key],
                    known_hosts=([asyncssh.import_public_key(self.machine.endpoint.host_key)], [], []),
                    config=None,
                    agent_path=None,
                ) as connection,
            ):
                return (await connection.run("true", stdin=asyncssh.DEVNULL)).exit_status == 0
        except (asyncssh.PermissionDenied, asyncssh.ConnectionLost):
            return False  # PAM lets a closed account in as far as the end of authentication, and hangs up


class Simulated:
    """The simulated node as a machine of the suite."""

    name = "simulated"

    def __init__(self, node: SimulatedNode, client: SshClient) -> None:
        self.node = node
        self.client = client
        self.endpoint = SshEndpoint(node.address, node.port, "root", node.host_key)

    def will_make(self, user: str) -> None:
        """Nothing outlives this machine."""

    def users(self) -> set[str]:
        return set(self.node.table.users)

    def uid_of(self, user: str) -> int:
        return self.node.table.users[user].uid

    def use_up_uids(self) -> None:
        self.node.table.use_up_uids()

    def add_foreign(self, user: str) -> None:
        self.node.table.add_foreign(user)

    def has_steps(self, customer: Customer) -> bool:
        return any(call.user == customer.user and call.exit is None for call in self.node.calls) and bool(
            self.node._connections
        )

    async def start_process(self, user: str) -> None:
        self.node.table.users[user].processes = 1

    async def has_processes(self, user: str) -> bool:
        return self.node.table.users.get(user, User("")).processes > 0

    def mount_below_home(self, user: str) -> str:
        self.node.table.mounted.add(user)
        return ""

    def unmount(self, user: str) -> None:
        self.node.table.mounted.discard(user)

    def cut_connections(self) -> None:
        for connection in list(self.node._connections):
            connection.abort()

    @asynccontextmanager
    async def stalled(self, op: Op) -> AsyncIterator[None]:
        self.node.inject(op, Fault("hang"))
        yield

    async def close(self) -> None:
        await self.client.close()
        await self.node.stop()


class OpenSsh:
    """A stock sshd on this machine, with real users.

    `settings` are further ones that hold for all, `for_root` those that hold for the runtime's own login. `world`:
    shell commands that change what this daemon and its sessions see of the file system, and nobody else sees.
    """

    name = "openssh"

    def __init__(
        self, directory: Path, state: Path, *, use_pam: bool, settings: str = "", for_root: str = "", world: str = ""
    ) -> None:
        self._state = state
        self._made: set[str] = set()
        self._mounts: dict[str, Path] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        self._uids: dict[str, int] = {}
        host_key = asyncssh.generate_private_key("ssh-ed25519")
        host_key.write_private_key(directory / "host_key")
        (directory / "host_key").chmod(0o600)
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_public_key(directory / "root.pub")
        port = free_port()
        line = host_key.export_public_key().decode().strip()
        self.endpoint = SshEndpoint("127.0.0.1", port, "root", line)
        self.client = SshClient(key)
        config = directory / "sshd_config"
        self.settings = _Settings(config, directory, port, use_pam=use_pam, for_root=for_root)
        self.settings.write(settings)
        if not state.exists():  # a memory of its own on the machine of all: its uids are nobody else's
            state.mkdir(mode=0o700)
            (state / "last-uid").write_text(f"{first_uid()}\n")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        assert SSHD is not None
        self._log = (directory / "sshd.log").open("wb")
        command = [SSHD, "-D", "-e", "-f", str(config)]
        if world:
            enter = ["unshare", "-m", "--propagation", "private", "sh", "-ec", f'{world}\nexec "$@"', "sh"]
            command = [*enter, *command]
        self._sshd = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=self._log)

    @property
    def pid(self) -> int:
        """The daemon's process; the one that enters a world of its own becomes it."""
        return self._sshd.pid

    async def ready(self) -> None:
        await until(self._listens, "sshd listens")

    def _listens(self) -> bool:
        assert self._sshd.poll() is None, Path(self._log.name).read_text()
        with suppress(OSError):
            socket.create_connection((self.endpoint.host, self.endpoint.port), timeout=1).close()
            return True
        return False

    async def reconfigure(self, settings: str) -> None:
        """Let the daemon read its file again, with other settings for all; connections that stand go on."""
        before = self._starts()
        self.settings.write(settings)
        self._sshd.send_signal(signal.SIGHUP)
        await until(lambda: self._starts() > before, "sshd listens again")

    def _starts(self) -> int:
        return Path(self._log.name).read_text().count("Server listening")

    def users(self) -> set[str]:
        listed = subprocess.run(
            ["getent", "passwd"], check=True, capture_output=True, text=True, timeout=PATIENCE_S
        ).stdout
        return {line.split(":")[0] for line in listed.splitlines()}

    def will_make(self, user: str) -> None:
        self._made.add(user)

    def uid_of(self, user: str) -> int:
        return pwd.getpwnam(user).pw_uid

    def use_up_uids(self) -> None:
        self._state.mkdir(exist_ok=True)
        (self._state / "last-uid").write_text("60000\n")

    def add_foreign(self, user: str) -> None:
        add = ["useradd", "-m", "-d", str(HOMES / user), user]
        subprocess.run(add, check=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_S)

    def has_steps(self, customer: Customer) -> bool:
        return bool(steps_of(customer.allocation))

    def spawn(self, user: str, *command: str) -> subprocess.Popen[bytes]:
        as_user = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", *command]
        self._uids[user] = pwd.getpwnam(user).pw_uid  # the name may be gone when we look for what is left
        process = subprocess.Popen(as_user, stdin=subprocess.DEVNULL)
        self._started.append(process)
        return process

    async def spawn_mapped(self, user: str, uid: int) -> subprocess.Popen[bytes]:
        """Start a process as `uid` in a user namespace that belongs to `user`, of whom nothing else runs."""
        become = "read -r _; exec setpriv --reuid 1 --regid 1 --clear-groups sleep 600"
        as_user = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "unshare", "-U", "sh", "-c", become]
        self._uids[user] = self.uid_of(user)
        process = subprocess.Popen(as_user, stdin=subprocess.PIPE)
        self._started.append(process)
        own = Path("/proc", str(process.pid))
        await until(lambda: (own / "ns/user").readlink() != Path("/proc/self/ns/user").readlink(), "a namespace")
        for kind in ("uid_map", "gid_map"):
            (own / kind).write_text(f"0 {self._uids[user]} 1\n1 {uid} 1\n")
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
        return process

    async def start_process(self, user: str) -> None:
        # One that forks all the time: a list of processes is out of date before it is read.
        self.spawn(user, "sh", "-c", "while :; do sleep 0.3 & sleep 0.01; done")
        self.spawn(user, "sleep", "600")
        await until(lambda: len(processes_of(self._uids[user])) > 3, "the customer's processes run")

    async def has_processes(self, user: str) -> bool:
        return bool(processes_of(self._uids[user]))

    def mount_below_home(self, user: str) -> str:
        place = HOMES / user / "data here"
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "amends-test", str(place)]
        mounted = subprocess.run(mount, check=False, capture_output=True, timeout=PATIENCE_S)
        if mounted.returncode != 0:
            return f"mounting is not permitted here: {mounted.stderr.decode().strip()}"
        self._mounts[user] = place
        (place / "kept").write_text("the namespace's")
        return ""

    def unmount(self, user: str) -> None:
        subprocess.run(["umount", str(self._mounts.pop(user))], check=True, timeout=PATIENCE_S)

    def cut_connections(self) -> None:
        for session in children_of(self._sshd.pid):  # not their children: what a step runs goes on, as it would
            with suppress(ProcessLookupError):
                os.kill(session, signal.SIGKILL)

    @asynccontextmanager
    async def stalled(self, op: Op) -> AsyncIterator[None]:
        self._state.mkdir(exist_ok=True)
        holder = await asyncio.create_subprocess_exec(
            "flock", str(self._state / "lock"), "sh", "-c", "echo held; read -r _",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdin is not None
        try:
            async with asyncio.timeout(PATIENCE_S):
                assert await holder.stdout.readline() == b"held\n"
            yield
        finally:
            holder.stdin.close()
            async with asyncio.timeout(PATIENCE_S):
                await holder.wait()

    async def close(self) -> None:
        await self.client.close()
        if self._sshd.poll() is None:
            self.cut_connections()
        self._sshd.terminate()
        self._sshd.wait(PATIENCE_S)
        self._log.close()
        for user in list(self._mounts):
            self.unmount(user)
        for user in self._made:
            await self._clean_up(user)
        for process in self._started:
            process.kill()
            process.wait(PATIENCE_S)

    async def _clean_up(self, user: str) -> None:
        assert user.startswith("am-0test")
        if user in self.users():
            uid = self.uid_of(user)
            await until(lambda: not _killed(uid), f"the processes of {user} end")
            subprocess.run(["userdel", "-f", user], check=False, capture_output=True, timeout=PATIENCE_S)
        home = HOMES / user
        if home.is_symlink():
            home.unlink()
        elif home.is_dir():
            shutil.rmtree(home)


def processes_of(uid: int) -> list[int]:
    """List the living processes of a user."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            if str(uid) in fields["Uid"].split() and fields["State"][0] not in "ZX":
                found.append(int(status.parent.name))
    return found


def _killed(uid: int) -> list[int]:
    living = processes_of(uid)
    for process in living:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return living


def steps_of(allocation: str) -> list[int]:
    """List the processes of steps for this allocation that run on this machine."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"AMENDS_ALLOCATION={allocation}".encode() in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return found


def children_of(pid: int) -> list[int]:
    """List a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class _Settings:
    """The file that a daemon of ours reads."""

    def __init__(self, file: Path, directory: Path, port: int, *, use_pam: bool, for_root: str) -> None:
        self._file, self._directory, self._port, self._use_pam, self._for_root = (
            file,
            directory,
            port,
            use_pam,
            for_root,
        )

    def write(self, settings: str) -> None:
        # Last, for the first one counts: root's start files, which may take longer than a step, are this machine's own.
        for_root = [*self._for_root.splitlines(), f'SetEnv HOME="{self._directory}"']
        root = "\n".join(f"    {line}" for line in for_root)
        self._file.write_text(f"""\
ListenAddress 127.0.0.1
Port {self._port}
HostKey "{self._directory}/host_key"
PidFile none
UsePAM {"yes" if self._use_pam else "no"}
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
PermitRootLogin prohibit-password
Match User root
    AuthorizedKeysCommand /bin/cat "{self._directory}/root.pub"
    AuthorizedKeysCommandUser root
    AuthorizedKeysFile none
{root}
Match all
{settings}
""")
