"""A whole Amends as a platform runs it: the runtime's program on a Postgres and a NATS of their own, and a fleet.

The fleet is one process with simulated machines: real SSH servers and real agents. Clients ask by command through NATS.
"""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import asyncssh
import nats
from nats.aio.client import Client

from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.postgres import EmbeddedPostgres
from adapters.embedded.process import death_signal_prefix
from adapters.simulated.fleet_client import Fleet
from benchmarks.figures.servers import folder, postgres

READY_S, REPLY_S, ALL_S = 60.0, 60.0, 110.0
TOGETHER = 100  # commands at a time, where nothing is measured
BEAT_MS = 2000
CONFIG = """profile = "production"
callers = "open"
state_dir = {state}
[postgres]
dsn = {dsn}
[nats]
servers = [{nats}]
[http]
listen = "127.0.0.1:0"
[timing]
{timing}
"""


class Platform:
    """See above. Made by `platform`."""

    def __init__(self, base: Path, server: EmbeddedPostgres, broker: EmbeddedNats, timing: str) -> None:
        self.base, self.server, self._broker = base, server, broker
        self._config = base / "amends.toml"
        values = {"state": str(base / "state"), "dsn": server.dsn, "nats": broker.url}
        self._config.write_text(CONFIG.format(timing=timing, **{key: json.dumps(each) for key, each in values.items()}))
        self.runtime: asyncio.subprocess.Process
        self.client: Client
        self.sql: asyncpg.Connection[Any]
        self.fleet: Fleet
        self.log = base / "runtime.log"
        self.customer_key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()

    async def begin(self) -> None:
        """Start the runtime's program, as an operator would; it is under way when this returns."""
        with self.log.open("ab") as log:
            self.runtime = await asyncio.create_subprocess_exec(
                *death_signal_prefix(None), sys.executable, "-m", "supervisors.boot", "run", "--config", self._config,
                stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip

    async def ready(self) -> None:
        """It says that it serves."""
        assert self.runtime.stdout is not None
        async with asyncio.timeout(READY_S):
            line = await self.runtime.stdout.readline()
        if line.strip() != b"ready":
            raise RuntimeError(self.log.read_text()[-3000:])

    async def kill(self) -> None:
        """With SIGKILL."""
        self.runtime.kill()
        await self.runtime.wait()

    async def end(self) -> None:
        """In good order, or at once where it does not end."""
        if self.runtime.returncode is None:
            self.runtime.terminate()
            try:
                async with asyncio.timeout(30):
                    await self.runtime.wait()
            except TimeoutError:
                await self.kill()

    async def enter(self, machines: int) -> None:
        """An account, and so many machines in service."""
        key = json.loads((self.base / "state" / "endpoints.json").read_text())["ssh_public_key"]
        self.fleet = await Fleet.spawn(
            nodes=machines, nats_url=self._broker.url, client_key_line=key, state_dir=self.base / "fleet",
            interval_ms=BEAT_MS, log_file=self.base / "fleet.log",
        )  # fmt: skip
        await self.ask("cmd.account.create", account_id="acme", currency="usd")
        await self.all_of(
            self.ask("cmd.node.register", node_id=name, labels=node["labels"],
                     ssh={"host": node["host"], "port": node["port"], "host_key": node["host_key"]})
            for name, node in self.fleet.nodes.items()
        )  # fmt: skip
        await self.until("SELECT count(*) FROM nodes WHERE state = 'ready'", machines)

    async def rent(self) -> tuple[str, int]:
        """Ask for a rental: its id, and when it was asked for, in microseconds."""
        at_us = time.time_ns() // 1000
        reply = await self.ask(
            "cmd.allocation.request", account_id="acme", ssh_public_key=self.customer_key,
            rate_uminor_per_hour=249_000_000,
        )  # fmt: skip
        return reply["allocation"]["allocation_id"], at_us

    async def ask(self, subject: str, **body: Any) -> dict[str, Any]:
        """The data of a command that must be ok; one that finds no room is sent again."""
        token = (self.base / "state" / "operator.token").read_text().strip()
        headers = {"Idempotency-Key": secrets.token_hex(8), "Authorization": f"Bearer {token}"}
        while True:
            found = await self.client.request(
                f"amends.v1.{subject}", json.dumps(body).encode(), timeout=REPLY_S, headers=headers
            )
            reply = json.loads(found.data)
            if reply["ok"]:
                data: dict[str, Any] = reply["data"]
                return data
            if reply["error"]["code"] != "throttled":
                raise RuntimeError(f"{subject}: {reply['error']}")
            await asyncio.sleep(reply["error"].get("retry_after_ms", 100) / 1000)

    async def all_of(self, asked: Iterable[Any]) -> list[Any]:
        """What all of these come to, some at a time."""
        places = asyncio.Semaphore(TOGETHER)

        async def one(each: Any) -> Any:
            async with places:
                return await each

        return await asyncio.gather(*map(one, asked))

    async def changed(self, statement: str) -> None:
        """Have the database changed while no runtime holds it."""
        connection = await asyncpg.connect(self.server.dsn)
        try:
            await connection.execute("SELECT set_config('amends.epoch', epoch::text, false) FROM journal_head")
            await connection.execute(statement)
        finally:
            await connection.close()

    async def until(self, query: str, count: int) -> None:
        """Ask the database again and again, until it counts so many."""
        deadline = time.monotonic() + ALL_S
        while (found := await self.sql.fetchval(query)) != count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{query}: {found}, not {count}; {self.log.read_text()[-1000:]}")
            await asyncio.sleep(0.2)


@asynccontextmanager
async def platform(machines: int, timing: str = "") -> AsyncIterator[Platform]:
    """A platform with so many machines in service, and `timing` as the table `[timing]` has it."""
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(folder())
        server, broker = await stack.enter_async_context(postgres(base)), EmbeddedNats(base)
        await broker.start()
        stack.push_async_callback(broker.stop)
        made = Platform(base, server, broker, timing)
        await made.begin()
        stack.push_async_callback(made.end)
        await made.ready()
        made.client = await nats.connect(broker.url)
        stack.push_async_callback(made.client.close)
        made.sql = await asyncpg.connect(server.superuser_dsn)
        stack.push_async_callback(made.sql.close)
        stack.push_async_callback(_closed, made)
        await made.enter(machines)
        yield made


async def _closed(made: Platform) -> None:
    if hasattr(made, "fleet"):
        await made.fleet.close()
