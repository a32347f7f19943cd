"""The world outside a runtime, for acceptance tests: only NATS, SQL and SSH; the runtime is a process of its own."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import asyncssh
import nats
from nats.aio.client import Client

from adapters.simulated.ssh_node import SimulatedNode

HEARTBEAT_S = 0.1
CUSTOMER_KEY = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()


async def until(check: Callable[[], Awaitable[Any]], what: str, timeout_s: float = 10.0) -> Any:
    """Poll until `check` gives something true; the assertion names what did not come."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = await check()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        await asyncio.sleep(0.02)


class Machine:
    """One node: a real SSH server (simulated machine) and its heartbeats."""

    def __init__(self, world: "World", node_id: str) -> None:
        self.world, self.node_id = world, node_id
        self.ssh = SimulatedNode()
        self.boot_id = f"boot-{node_id}-1"
        self.beating = True
        self.answers = True
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.ssh.start()
        self._tasks = [asyncio.create_task(self._beat())]
        await self.world.nats.subscribe(f"amends.v1.task.{self.node_id}", cb=self._on_task)

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
        users = sorted(self.ssh.table.users)
        body = {"task_id": task["task_id"], "status": "ok", "inventory": {"mounts": [], "users": users, "foreign": []}}
        await self.world.nats.publish(f"amends.v1.result.{self.node_id}", json.dumps(body).encode())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.ssh.stop()

    def ops(self) -> list[str]:
        """The ops the machine has seen, probes left out."""
        return [call.op for call in self.ssh.calls if call.op != "probe"]


class World:
    """A runtime process and everything around it."""

    def __init__(self, state_dir: Path, config: str = "") -> None:
        self.state_dir = state_dir
        self.config = config
        self.process: asyncio.subprocess.Process | None = None
        self.machines: dict[str, Machine] = {}
        self.endpoints: dict[str, Any] = {}
        self.nats: Client
        self.sql: asyncpg.Connection[Any]
        self._keys = 0

    # --- the runtime ---------------------------------------------------------------------------------

    async def start(self) -> None:
        self.state_dir.mkdir(parents=True, exist_ok=True)
        file = self.state_dir / "amends.toml"
        head = "" if "profile" in self.config else 'profile = "acceptance"\n'
        file.write_text(f'{head}state_dir = "{self.state_dir}"\n[http]\nlisten = "127.0.0.1:0"\n{self.config}')
        self.log = (self.state_dir / "runtime.log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "supervisors.boot", "run", "--config", str(file),
            stdout=asyncio.subprocess.PIPE, stderr=self.log,
        )  # fmt: skip
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            line = await self.process.stdout.readline()
        assert line.strip() == b"ready", (self.state_dir / "runtime.log").read_text()[-3000:]
        self.endpoints = json.loads((self.state_dir / "endpoints.json").read_text())

    async def connect(self) -> None:
        self.nats = await nats.connect(self.endpoints["nats_url"], max_reconnect_attempts=-1, reconnect_time_wait=0.05)
        await self.open_sql()

    async def open_sql(self) -> None:
        host = parse_qs(urlsplit(self.endpoints["postgres_dsn"]).query)["host"][0]
        self.sql = await asyncpg.connect(f"postgresql://postgres@/amends?host={host}")
        await self.sql.set_type_codec("json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        await self.sql.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")

    def kill(self) -> None:
        """kill -9 of the runtime."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)

    async def restart(self) -> None:
        """Wait for the killed one to be gone, then start it again on the same state."""
        assert self.process is not None
        await self.process.wait()
        self.log.close()
        await self.sql.close(timeout=2)
        await self.start()
        await self.open_sql()

    async def stop(self) -> None:
        for machine in self.machines.values():
            await machine.stop()
        await self.nats.close()
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
        self.log.close()
        if not self.sql.is_closed():
            self.sql.terminate()

    # --- asking --------------------------------------------------------------------------------------

    async def ask(
        self, subject: str, data: Any, *, key: str | None = None, headers: dict[str, str] | None = None, timeout_s: float = 5
    ) -> dict[str, Any]:
        """The reply to a request, as parsed JSON."""
        if key is None:
            self._keys += 1
            key = f"test-{os.getpid()}-{id(self)}-{time.time_ns()}-{self._keys}"
        head = {"Idempotency-Key": key} if key else {}
        if subject.startswith("ops."):
            head["Authorization"] = f"Bearer {self.endpoints['operator_token']}"
        head |= headers or {}
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        reply = await self.nats.request(f"amends.v1.{subject}", payload, timeout=timeout_s, headers=head)
        return json.loads(reply.data)

    async def ok(self, subject: str, data: Any, **options: Any) -> dict[str, Any]:
        """The data of a reply that must be ok."""
        reply = await self.ask(subject, data, **options)
        assert reply["ok"], reply
        return reply["data"]

    async def rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in await self.sql.fetch(query, *args)]

    async def one(self, query: str, *args: Any) -> dict[str, Any]:
        rows = await self.rows(query, *args)
        assert len(rows) == 1, rows
        return rows[0]

    # --- the fleet and rentals -----------------------------------------------------------------------

    async def add_machine(self, node_id: str, *, ready: bool = True) -> Machine:
        machine = self.machines[node_id] = Machine(self, node_id)
        await machine.start()
        ssh = {"host": "127.0.0.1", "port": machine.ssh.port, "host_key": machine.ssh.host_key}
        await self.ok("cmd.node.register", {"node_id": node_id, "ssh": ssh, "labels": {"zone": "a"}})
        if ready:
            await self.node_is(node_id, "ready")
        return machine

    async def node_is(self, node_id: str, state: str, timeout_s: float = 10) -> None:
        async def check() -> bool:
            return (await self.one("SELECT state FROM public_v1.node WHERE node_id = $1", node_id))["state"] == state

        await until(check, f"node {node_id} is {state}", timeout_s)

    async def account(self, account_id: str = "acme") -> str:
        await self.ok("cmd.account.create", {"account_id": account_id, "currency": "usd"})
        return account_id

    async def request(self, account_id: str = "acme", **more: Any) -> dict[str, Any]:
        data = {"account_id": account_id, "ssh_public_key": CUSTOMER_KEY, "rate_uminor_per_hour": 249_000_000, **more}
        return (await self.ok("cmd.allocation.request", data))["allocation"]

    async def allocation(self, allocation_id: str) -> dict[str, Any]:
        return await self.one("SELECT * FROM public_v1.allocation WHERE allocation_id = $1", allocation_id)

    async def allocation_is(self, allocation_id: str, *states: str, timeout_s: float = 10) -> dict[str, Any]:
        async def check() -> Any:
            row = await self.allocation(allocation_id)
            return row if row["state"] in states else None

        return await until(check, f"{allocation_id} is {'/'.join(states)}", timeout_s)

    async def rent(self, **more: Any) -> str:
        allocation = await self.request(**more)
        await self.allocation_is(allocation["allocation_id"], "active")
        return allocation["allocation_id"]
