"""A real agent with plain mounts on a machine of an acceptance test, and a storage provider that serves directories."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any, Generic, TypeVar

from adapters.nats.agent import NodeAgent
from adapters.nats.agent_plain import PlainMounts
from adapters.nats.provider_service import ProviderService
from adapters.simulated.mount_faults import BrokenMounts, MountFaults
from adapters.storage.bind import BindBackend
from adapters.storage.directories import Directories
from amends.ports.storage import Capabilities, Usage
from tests.acceptance.machine import Machine
from tests.acceptance.world import World, until
from tests.directories import scratch

QUOTA = 1000
M = TypeVar("M", bound=Machine)


class Told:
    """Usage as a file system with a quota says it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def usage(self, namespace_id: str) -> Usage:
        used = sum(each.stat().st_size for each in (self._root / namespace_id).rglob("*") if each.is_file())
        return Usage(used, time.time_ns() // 1000, enforced=True)

    async def close(self) -> None:
        """Nothing runs."""


class Provider:
    """`amends provider nfs --bind` in this process."""

    def __init__(self, world: World, provider_id: str) -> None:
        self.world, self.provider_id = world, provider_id
        self.base = scratch("amends-storage-")
        self.root = self.base / "root"
        self.root.mkdir()
        self._serving: asyncio.Task[None] | None = None

    def hold(self, name: str) -> Path:
        """An operator makes a namespace's directory; what it holds must never change by itself."""
        (self.root / name).mkdir()
        (self.root / name / "letter").write_text("dear customer")
        return self.root / name

    async def start(self) -> None:
        """Serve, on a connection of its own."""
        self.backend = BindBackend(Directories(self.root), Told(self.root), Capabilities())
        self.service = ProviderService(self.provider_id, self.backend, self.base / "state")
        await self.service.restore()
        self._serving = asyncio.create_task(self.service.serve(self.world.nats))
        await self.world.nats.flush()

    async def lets_in(self, namespace: str) -> bool:
        """Whether some machine may mount it; all have the same address here."""
        return await self.backend.look(namespace, "127.0.0.1") != ""

    async def stop(self) -> None:
        """As if it had been killed."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait({self._serving})
            self._serving = None
            await self.service.close()


class StorageMachine(Machine):
    """A machine whose agent is the real one, below a root of its own."""

    def __init__(self, world: World, node_id: str) -> None:
        super().__init__(world, node_id)
        self.base = world.state_dir.parent / node_id
        self.root, self.mount_faults = self.base / "root", MountFaults()
        self.agent: NodeAgent | None = None

    async def start(self) -> None:
        await self.ssh.start()
        await self.start_agent()

    async def start_agent(self) -> None:
        """Beats and mounts."""
        mounts = BrokenMounts(PlainMounts(self.root, self.base / "agent", self.boot_id), self.mount_faults)
        self.agent = NodeAgent(
            self.node_id, [self.world.endpoints["nats_url"]], self.base / "agent", interval_ms=100,
            boot_id=self.boot_id, users=lambda: self.users, mounts=mounts,
        )  # fmt: skip
        await self.agent.start()

    async def stop_agent(self) -> None:
        """No beats, no answers; what is mounted stays so."""
        if self.agent is not None:
            await self.agent.stop()
            self.agent = None

    async def stop(self) -> None:
        self.mount_faults.reboot()
        await self.stop_agent()
        await super().stop()

    def break_mount(self, op: str, kind: str, times: int = 99) -> None:
        self.mount_faults.inject(op, kind, times)

    def at(self, path: str) -> Path:
        """Where a path of the machine lies here."""
        return Path(f"{self.root}{path}")


class HandMachine(Machine):
    """A machine whose agent is played by hand: it answers all but mounts, and has nothing to unmount."""

    def __init__(self, world: World, node_id: str) -> None:
        super().__init__(world, node_id)
        self._tasks: dict[str, dict[str, Any]] = {}

    def tasks(self, op: str) -> list[dict[str, Any]]:
        """Those of that op, however often each was sent."""
        return [task for task in self._tasks.values() if task["op"] == op]

    async def _on_task(self, message: Any) -> None:
        task = json.loads(message.data)
        self._tasks.setdefault(task["task_id"], task)
        if task["op"] == "unmount":
            await self.says(task, "noop", observed={"mounted": False})
        elif task["op"] == "reconcile":
            await super()._on_task(message)

    async def says(self, task: dict[str, Any], status: str, **more: Any) -> None:
        """The result of a task."""
        body = json.dumps({"task_id": task["task_id"], "status": status, **more})
        await self.world.nats.publish(f"amends.v1.result.{self.node_id}", body.encode())


class Storage(Generic[M]):
    """A provider with one namespace, and an active rental on a machine with an agent."""

    def __init__(self, world: World, provider: Provider, machine: M) -> None:
        self.world, self.provider, self.machine = world, provider, machine

    async def begin(self) -> None:
        """Rent, and make the namespace known."""
        self.namespace = self.world.new_name("ns")
        self.directory = self.provider.hold(self.namespace)
        self.allocation = await self.world.rent(node_id=self.machine.node_id)
        await self.create(self.namespace)

    async def create(self, namespace: str) -> None:
        """A namespace of acme."""
        await self.world.ok("cmd.namespace.create", {
            "namespace_id": namespace, "account_id": "acme", "provider_id": self.provider.provider_id,
            "quota_bytes": QUOTA,
        })  # fmt: skip

    async def attach(self, *states: str, **more: Any) -> dict[str, Any]:
        """Ask, and wait for one of the states; the row."""
        wish = {
            "allocation_id": self.allocation,
            "namespace_id": self.namespace,
            "mode": "rw",
            "mount_path": "/mnt/data",
        }
        found = await self.world.ok("cmd.attachment.attach", {**wish, **more})
        return await self.comes_to(found["attachment"]["attachment_id"], *(states or ("attached", "failed")))

    async def comes_to(self, attachment_id: str, *states: str) -> dict[str, Any]:
        """Wait for one of the states of an attachment; its row."""

        async def check() -> Any:
            row = await self.row(attachment_id)
            return row if row["state"] in states else None

        row: dict[str, Any] = await until(check, f"{attachment_id} is one of {states}")
        return row

    async def row(self, attachment_id: str) -> dict[str, Any]:
        return await self.world.one("SELECT * FROM public_v1.attachment WHERE attachment_id = $1", attachment_id)

    async def about(self) -> dict[str, Any]:
        """The namespace's row."""
        return await self.world.one("SELECT * FROM public_v1.namespace WHERE namespace_id = $1", self.namespace)

    async def grants(self, *states: str) -> int:
        """How many grants of the namespace are in these states."""
        return len(await self.world.rows(
            "SELECT 1 FROM public_v1.provider_grant WHERE namespace_id = $1 AND state = ANY($2)", self.namespace, states
        ))  # fmt: skip

    def untouched(self) -> bool:
        """What the namespace holds is there."""
        return (self.directory / "letter").read_text() == "dear customer"
