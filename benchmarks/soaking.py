"""A runtime with its embedded servers and a fleet, under a steady light load; what the kernel says of its process.

The load goes through the client, as a shop's would: who rents asks again until he is answered.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import asyncssh

from adapters.embedded.process import death_signal_prefix
from adapters.simulated.fleet_client import Fleet
from amends_client import connect
from amends_client.client import Client
from amends_client.errors import Refused, Unreachable

READY_S, BEAT_MS, POLL_S, REST_S = 120.0, 5000, 0.25, 300.0
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
AWAY: Final = (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError)
ENDED: Final = ("released", "failed")
CONFIG: Final = """profile = "production"
callers = "open"
state_dir = {state}
[http]
listen = "127.0.0.1:0"
[timing]
# The load is as light as it is steady: a machine that a kill fell upon is back soon.
cleanup_backoff_ms = [1000, 10000]
setup_fail_limit = 1000000
"""


class Soaked:
    """See above. `done`: rentals that have come and gone; `seen`: a line for each second."""

    def __init__(self, base: Path, nodes: int, rate: float) -> None:
        self.base, self.state, self.nodes, self.rate = base, base / "state", nodes, rate
        self.config = base / "amends.toml"
        self.config.write_text(CONFIG.format(state=json.dumps(str(self.state))), encoding="utf-8")
        self.log = base / "runtime.log"
        self.key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
        self.process: asyncio.subprocess.Process
        self.fleet: Fleet
        self.client: Client
        self.begun = self.done = self.failed = 0
        self._leaving = False
        self._customers: set[asyncio.Task[None]] = set()
        self._way = contextlib.AsyncExitStack()

    # --- processes -----------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Start the runtime's program, and wait until it serves."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *death_signal_prefix(None), sys.executable, "-m", "supervisors.boot", "run", "--config", self.config,
                stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        async with asyncio.timeout(READY_S):
            while (line := await self.process.stdout.readline()).strip() != b"ready":
                if not line:
                    raise RuntimeError(self.log.read_text(encoding="utf-8")[-3000:])

    async def open(self) -> None:
        """The runtime, the fleet, its machines in service, an account."""
        await self.begin()
        found = self.endpoints
        self.fleet = await Fleet.spawn(
            nodes=self.nodes, nats_url=found["nats_url"], client_key_line=found["ssh_public_key"],
            state_dir=self.base / "fleet", interval_ms=BEAT_MS, log_file=self.base / "fleet.log",
        )  # fmt: skip
        self._way.push_async_callback(self.fleet.close)
        token = (self.state / "operator.token").read_text(encoding="utf-8").strip()
        self.client = await self._way.enter_async_context(connect(found["nats_url"], token=token, deadline_s=120.0))
        await self.client.account.create(account_id="acme", currency="usd")
        for name, node in self.fleet.nodes.items():
            ssh: Any = {"host": node["host"], "port": node["port"], "host_key": node["host_key"]}
            await self.client.node.register(node_id=name, ssh=ssh, labels=node["labels"])
        await self.until_none("SELECT node_id FROM public_v1.node WHERE state <> 'ready'")

    async def close(self) -> None:
        """Whatever runs ends."""
        for task in self._customers:
            task.cancel()
        await asyncio.gather(*self._customers, return_exceptions=True)
        await self._way.aclose()
        if self.process.returncode is None:
            self.process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(30):
                    await self.process.wait()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    @property
    def endpoints(self) -> dict[str, str]:
        """What the runtime says of itself."""
        found: dict[str, str] = json.loads((self.state / "endpoints.json").read_text(encoding="utf-8"))
        return found

    # --- kills ---------------------------------------------------------------------------------------

    async def kill_postgres(self) -> None:
        """SIGKILL to the server; the runtime starts it again."""
        os.kill(int((self.state / "postgres" / "data" / "postmaster.pid").read_text().split("\n")[0]), signal.SIGKILL)

    async def kill_nats(self, *, wiped: bool = False) -> None:
        """SIGKILL to the server, perhaps with all that it had stored gone; then its streams are made again."""
        (ports,) = (self.state / "nats").glob("nats-server_*.ports")
        pid = int(ports.stem.rpartition("_")[2])
        os.kill(pid, signal.SIGSTOP if wiped else signal.SIGKILL)
        if wiped:
            shutil.rmtree(self.state / "nats" / "jetstream")
            os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(2)
            await self.client.ops.streams.create(reason="the store is gone")

    async def kill_runtime(self) -> int:
        """SIGKILL to the runtime, and its program is started again; when it was killed, in microseconds."""
        self.process.kill()
        at_us = time.time_ns() // 1000
        await self.process.wait()
        await self.begin()
        return at_us

    # --- the load ------------------------------------------------------------------------------------

    async def customers(self) -> None:
        """They come evenly, until told that no more shall."""
        began, came = time.monotonic(), 0
        while not self._leaving:
            came += 1
            task = asyncio.create_task(self._visit())
            self._customers.add(task)
            task.add_done_callback(self._customers.discard)
            await asyncio.sleep(max(0.0, began + came / self.rate - time.monotonic()))

    async def _visit(self) -> None:
        try:
            rental = await self.client.allocation.request(
                account_id="acme", ssh_public_key=self.key, rate_uminor_per_hour=249_000_000
            )
            self.begun += 1
            while rental.row.state not in ("active", *ENDED):
                await asyncio.sleep(POLL_S)
                await rental.refresh()
            self.failed += rental.row.state == "failed"
            await self.client.allocation.release(allocation_id=rental.id)
            while rental.row.state not in ENDED:
                await asyncio.sleep(POLL_S)
                await rental.refresh()
            self.done += 1
        except (Refused, Unreachable) as error:
            raise RuntimeError(f"a customer was not served: {error}") from error

    async def all_leave(self) -> None:
        """No more come, and those that are there go."""
        self._leaving = True
        async with asyncio.timeout(REST_S):
            while self._customers:
                await asyncio.gather(*self._customers)

    # --- looking -------------------------------------------------------------------------------------

    def usage(self) -> dict[str, float]:
        """Of the runtime's process: resident KiB, file descriptors, seconds of the processor."""
        proc = Path(f"/proc/{self.process.pid}")
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        return {
            "rss_kib": int((proc / "statm").read_text().split()[1]) * PAGE / 1024,
            "descriptors": len(os.listdir(proc / "fd")),  # noqa: PTH208 - a count of names
            "cpu_s": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        }

    async def tasks(self, session: aiohttp.ClientSession) -> float:
        """Tasks of its event loop, as it says itself."""
        async with session.get(f"{self.endpoints['http_url']}/metrics") as response:
            text = await response.text()
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith("amends_tasks ")))

    async def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Of the database, as whoever may read it; none while it is away."""
        connection = await asyncpg.connect(self.endpoints["postgres_dsn"], timeout=5)
        try:
            return [dict(row) for row in await connection.fetch(query, *values)]
        finally:
            await connection.close()

    async def until_none(self, query: str, *values: Any, within_s: float = REST_S) -> None:
        """Ask again and again, until there is no such row."""
        deadline, found = time.monotonic() + within_s, list[dict[str, Any]]()
        while time.monotonic() < deadline:
            with contextlib.suppress(*AWAY):
                found = await self.rows(query, *values)
                if not found:
                    return
            await asyncio.sleep(0.2)
        raise TimeoutError(f"{query}: still {found[:5]}")
