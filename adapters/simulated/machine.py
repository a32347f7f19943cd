"""One machine of the simulated fleet: its SSH server, its agent, and what survives a restart of the program.

Below its directory stand its host key, users, port and boot. The agent comes from a factory, so that nothing
here knows how agents talk.
"""

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import asyncssh
import msgspec

from adapters.simulated.mount_faults import MountFaults
from adapters.simulated.ssh_node import SimulatedNode

log = logging.getLogger("amends.fleet")
Users = Callable[[], Sequence[str]]


class Place(msgspec.Struct, frozen=True):
    """What an agent needs of its machine. `root`: where the machine's own / is; `directory`: the agent's own."""

    node_id: str
    directory: Path
    root: Path
    boot_id: str
    users: Users
    mount_faults: MountFaults


# The agent of a machine, running until cancelled.
AgentFactory = Callable[[Place], Coroutine[None, None, None]]


class _Kept(msgspec.Struct):
    port: int = 0
    boot_id: str = ""


class Machine:
    """A node that answers over SSH and beats; `directory` is its own and outlives the program."""

    def __init__(
        self, node_id: str, directory: Path, labels: dict[str, str], *, client_keys: tuple[str, ...],
        agent: AgentFactory, free_port: Callable[[], int],
    ) -> None:  # fmt: skip
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.node_id, self.labels = node_id, labels
        self._directory, self._client_keys, self._factory = directory, client_keys, agent
        self._free_port = free_port
        self._agent: asyncio.Task[None] | None = None
        self.mount_faults = MountFaults()
        file = directory / "machine.json"
        self._kept = msgspec.json.decode(file.read_bytes(), type=_Kept) if file.exists() else _Kept()
        if not self._kept.boot_id:
            self._kept.boot_id = str(uuid.uuid4())
        self.ssh = self._server(self._host_key())

    @property
    def root(self) -> Path:
        """Where what is mounted at /mnt/data is: `root`/mnt/data."""
        return self._directory / "root"

    def describe(self) -> dict[str, object]:
        """What it takes to register the node."""
        return {
            "node_id": self.node_id, "host": self.ssh.address, "port": self.ssh.port,
            "host_key": self.ssh.host_key, "labels": self.labels, "boot_id": self._kept.boot_id, "root": str(self.root),
        }  # fmt: skip

    def users(self) -> list[str]:
        """Customers' accounts present, as the agent reports them."""
        return [name for name in list(self.ssh.table.users) if name.startswith("am-")]

    async def start(self) -> None:
        """Everything up."""
        await self.start_ssh()
        await self.start_agent()

    async def stop(self) -> None:
        """Everything down; what is kept stays."""
        await self.stop_agent()
        await self.ssh.stop()

    async def start_ssh(self) -> None:
        """Listen on the port of old; on another one if somebody has taken it."""
        try:
            await self.ssh.start()
        except OSError as error:
            log.warning("%s cannot have its port %d again: %s", self.node_id, self.ssh.port, error)
            self.ssh.port = self._free_port()
            await self.ssh.start()
        if self._kept.port != self.ssh.port or not (self._directory / "machine.json").exists():
            self._kept.port = self.ssh.port
            self._keep()

    async def start_agent(self) -> None:
        """Beat; nothing if it does already."""
        if self._agent is None or self._agent.done():
            place = Place(
                self.node_id, self._directory / "agent", self.root, self._kept.boot_id, self.users, self.mount_faults
            )
            self._agent = asyncio.create_task(self._factory(place))
            self._agent.add_done_callback(self._agent_ended)

    async def stop_agent(self) -> None:
        """Fall silent on the bus; SSH goes on."""
        task, self._agent = self._agent, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def reboot(self) -> None:
        """Come back with another boot id and without processes or mounts; accounts stay."""
        await self.stop()
        self._kept.boot_id = str(uuid.uuid4())
        self._keep()
        self.mount_faults.reboot()
        self.ssh.table.mounted.clear()
        for user in self.ssh.table.users.values():
            user.processes = 0
        await self.start()

    async def change_host_key(self) -> None:
        """Come back with another host key, kept from then on."""
        old = self.ssh
        await old.stop()
        key = asyncssh.generate_private_key("ssh-ed25519")
        _write(self._directory / "host_key", key.export_private_key("openssh"))
        self.ssh = self._server(key)
        self.ssh.calls, self.ssh.faults, self.ssh.refuse_auth = old.calls, old.faults, old.refuse_auth
        self.ssh.table.mounted |= old.table.mounted
        await self.start_ssh()

    def _server(self, key: asyncssh.SSHKey) -> SimulatedNode:
        return SimulatedNode(
            client_keys=self._client_keys,
            file=self._directory / "users.json",
            host_key=key,
            port=self._kept.port or self._free_port(),
        )

    def _host_key(self) -> asyncssh.SSHKey:
        file = self._directory / "host_key"
        if not file.exists():
            _write(file, asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh"))
        return asyncssh.read_private_key(file)

    def _keep(self) -> None:
        _write(self._directory / "machine.json", msgspec.json.encode(self._kept))

    def _agent_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the agent of %s ended: %s", self.node_id, error)


def _write(file: Path, content: bytes) -> None:
    part = file.with_name(f"{file.name}.new")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
    part.replace(file)
