"""One rentable machine of an acceptance test: a real SSH server and the heartbeats of its agent."""

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import asyncssh

from adapters.embedded.ports import free_port
from adapters.simulated.ssh_node import Call, Fault, FaultKind, SimulatedNode

if TYPE_CHECKING:
    from tests.acceptance.world import World

HEARTBEAT_S = 0.1
CUSTOMER = asyncssh.generate_private_key("ssh-ed25519")
CUSTOMER_KEY = CUSTOMER.export_public_key().decode().strip()


def user_of(allocation_id: str) -> str:
    """The Unix user of an allocation (api.md 8)."""
    return f"am-{allocation_id.removeprefix('alloc_')}"


class Machine:
    """One node: a real SSH server (simulated machine) and its heartbeats."""

    def __init__(self, world: "World", node_id: str) -> None:
        self.world, self.node_id = world, node_id
        self.ssh = SimulatedNode(port=free_port())
        self.boot_id = f"boot-{node_id}-1"
        self.beating = True
        self.answers = True
        self.reconciles = 0
        self._beats: asyncio.Task[None] | None = None
        self._subscription: Any = None

    async def start(self) -> None:
        """Serve SSH, beat, answer tasks."""
        await self.ssh.start()
        self._beats = asyncio.create_task(self._beat())
        subject = f"amends.v1.task.{self.node_id}"
        self._subscription = await self.world.nats.subscribe(subject, cb=self._on_task)

    async def _beat(self) -> None:
        seq = 0
        while True:
            if self.beating and self.world.nats.is_connected:
                seq += 1
                body = {"boot_id": self.boot_id, "seq": seq, "sent_us": time.time_ns() // 1000}
                await self.world.nats.publish(f"amends.v1.hb.{self.node_id}", json.dumps(body).encode())
            await asyncio.sleep(HEARTBEAT_S)

    async def _on_task(self, message: Any) -> None:
        task = json.loads(message.data)
        if not self.answers:
            return
        self.reconciles += 1
        inventory = {"mounts": [], "users": sorted(self.ssh.table.users), "foreign": []}
        body = {"task_id": task["task_id"], "status": "ok", "inventory": inventory}
        await self.world.nats.publish(f"amends.v1.result.{self.node_id}", json.dumps(body).encode())

    @property
    def ssh_port(self) -> int:
        """Where the runtime is told to look for it."""
        return self.ssh.port

    def is_heard(self) -> bool:
        """Whether it sends heartbeats."""
        return self.beating and self._beats is not None

    async def fall_silent(self) -> None:
        """No more heartbeats, until the runtime suspects the node; SSH goes on."""
        self.beating = False
        await self.world.node_is(self.node_id, "suspect")

    async def stop(self) -> None:
        """Gone: no heartbeats, no SSH."""
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)
            self._beats = None
        if self._subscription is not None and self.world.nats.is_connected:
            await self._subscription.unsubscribe()
        self._subscription = None
        await self.ssh.stop()

    def fault(self, op: str, kind: FaultKind, **more: Any) -> None:
        """Let the next commands of `op` go wrong."""
        self.ssh.inject(op, Fault(kind=kind, **more))

    async def refuse_logins(self) -> None:
        """Nobody gets in any more; connections that stand are cut."""
        await self.ssh.stop()
        self.ssh.refuse_auth = True
        await self.ssh.start()

    @property
    def users(self) -> list[str]:
        """The accounts on the machine."""
        return sorted(self.ssh.table.users)

    def ops(self, allocation_id: str = "") -> list[str]:
        """The ops the machine has seen (of one allocation), probes left out."""
        return [call.op for call in self.calls(allocation_id)]

    def calls(self, allocation_id: str = "") -> list[Call]:
        """The commands the machine has seen (of one allocation), probes left out."""
        user = user_of(allocation_id) if allocation_id else ""
        return [call for call in self.ssh.calls if call.op != "probe" and (not user or call.user == user)]

    async def lets_in(self, allocation_id: str) -> bool:
        """Whether the customer of an allocation can log in now."""
        try:
            async with asyncssh.connect(
                "127.0.0.1", self.ssh.port, username=user_of(allocation_id), client_keys=[CUSTOMER],
                known_hosts=([asyncssh.import_public_key(self.ssh.host_key)], [], []), config=None, agent_path=None,
            ):  # fmt: skip
                return True
        except (asyncssh.PermissionDenied, OSError):
            return False
