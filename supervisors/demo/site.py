"""The demo's hands: the runtime as a process, the fleet, and what any outsider has: NATS, SQL, SSH."""

import asyncio
import json
import os
import secrets
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
from nats.errors import Error as NatsError

from adapters.embedded.process import death_signal_prefix
from adapters.simulated.fleet_client import Fleet
from amends.values.errors import Unavailable
from amends.values.inboxes import inbox_prefix
from supervisors.closing import Parts
from supervisors.demo.users import BusUsers

READY_WITHIN_S = 60
END_WITHIN_S = 12  # a runtime of the acceptance profile ends itself within 8 s
CLOSE_WITHIN_S = 60
CONFIG = """profile = "acceptance"
state_dir = {state_dir}
[nats]
users_file = {users_file}
[http]
listen = "127.0.0.1:0"
[timing]
setup_fail_limit = 1000  # set-ups are broken on purpose, again and again on a state that is kept
# Nothing that is shown waits for a time-out, and a busy machine may take its time.
ssh_step_timeout_ms = 20000
allocation_deadline_ms = 20000
probe_timeout_ms = 5000
suspect_after_ms = 3000
offline_after_ms = 6000
"""


class DemoFailed(Exception):
    """Something did not end as the matrix says; the message says what."""


class Site:
    """One runtime and its fleet below `state_dir`."""

    def __init__(self, state_dir: Path, nodes: int) -> None:
        self.state_dir = state_dir
        self.users = BusUsers(state_dir, [f"node-{number}" for number in range(1, nodes + 1)])
        self.endpoints: dict[str, Any] = {}
        self.customer_key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
        self.admin: Client  # the keeper of the streams, to break them by hand
        self.front: Client
        self.operator: Client
        self.sql: asyncpg.Connection[Any]
        self.fleet: Fleet | None = None
        self._process: asyncio.subprocess.Process | None = None

    # --- processes -----------------------------------------------------------------------------------

    async def start_runtime(self) -> float:
        """Start `amends run` and wait for `ready`; milliseconds it took. Raises `Unavailable`."""
        config = self.state_dir / "amends.toml"
        paths = {"state_dir": self.state_dir, "users_file": self.users.file}
        config.write_text(CONFIG.format(**{k: json.dumps(str(v)) for k, v in paths.items()}), encoding="utf-8")
        env = dict(os.environ)
        for prefix, name in (("AMENDS_NATS", "runtime"), ("AMENDS_NATS_OPERATOR", "operator")):
            found = self.users.of(name)
            env |= {f"{prefix}_USER": found["user"], f"{prefix}_PASSWORD": found["password"]}
        began = time.monotonic()
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *death_signal_prefix(None), sys.executable, "-m", "supervisors.boot", "run", "--config", str(config),
                stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True, env=env,
            )  # fmt: skip
        assert self._process.stdout is not None
        async with asyncio.timeout(READY_WITHIN_S):
            line = await self._process.stdout.readline()
        if line.strip() != b"ready":
            end = self.log_file.read_text(encoding="utf-8")[-2000:]
            raise Unavailable(f"the runtime did not start; the end of {self.log_file}:\n{end}")
        self.endpoints = json.loads((self.state_dir / "endpoints.json").read_text(encoding="utf-8"))
        return (time.monotonic() - began) * 1000

    @property
    def nats_url(self) -> str:
        """Where NATS is, without anybody's credentials."""
        scheme, _, rest = str(self.endpoints["nats_url"]).partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"

    @property
    def log_file(self) -> Path:
        """Where the runtime's own log goes."""
        return self.state_dir / "runtime.log"

    async def connect(self) -> None:
        """Connections of outsiders; SQL as the superuser of the embedded server, to break things by hand."""
        if not hasattr(self, "admin"):
            self.admin, self.front, self.operator = [
                await nats.connect(
                    self.nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=_quiet,
                    inbox_prefix=inbox_prefix(name), **self.users.of(name),
                )
                for name in ("streams", "front", "operator")
            ]  # fmt: skip
        host = parse_qs(urlsplit(self.endpoints["postgres_dsn"]).query)["host"][0]
        self.sql = await asyncpg.connect(f"postgresql://postgres@/amends?host={host}")

    async def kill(self) -> None:
        """Kill -9 of the runtime; its embedded servers die with it."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        self.sql.terminate()

    async def close(self) -> None:
        """End everything that was started, the runtime by SIGTERM."""
        parts = Parts()
        parts.opened("the runtime", self._end_runtime)
        for name in ("admin", "front", "operator"):
            if hasattr(self, name):
                parts.opened(f"{name}'s connection", getattr(self, name).close)
        if self.fleet is not None:
            parts.opened("the simulated machines", self.fleet.close)
        if hasattr(self, "sql"):
            self.sql.terminate()
        await parts.close(CLOSE_WITHIN_S - 5)

    async def _end_runtime(self) -> None:
        """By SIGTERM; it has a deadline of its own, and one that passes that as well is killed."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(END_WITHIN_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    # --- asking --------------------------------------------------------------------------------------

    async def ask(self, subject: str, data: dict[str, Any], *, key: str = "") -> dict[str, Any]:
        """The data of the reply; raises `DemoFailed` when it is an error, or none comes."""
        headers, client = {"Idempotency-Key": key or secrets.token_hex(8)}, self.front
        if subject.startswith("ops."):
            headers["Authorization"], client = f"Bearer {self.endpoints['operator_token']}", self.operator
        try:
            reply = await client.request(f"amends.v1.{subject}", json.dumps(data).encode(), timeout=5, headers=headers)
        except NatsError as error:  # nobody answers, or not in time
            raise DemoFailed(f"{subject} had no answer: {str(error) or type(error).__name__}") from error
        body = json.loads(reply.data)
        if not body["ok"]:
            raise DemoFailed(f"{subject} was refused: {body['error']}")
        return {**body["data"], "duplicate": body["duplicate"]}

    async def make(self, subject: str, data: dict[str, Any]) -> None:
        """Create what may be there from an earlier run of the demo on the same state."""
        try:
            await self.ask(subject, data)
        except DemoFailed as error:
            if "already_exists" not in str(error):
                raise

    async def rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        """Rows of a query."""
        return [dict(row) for row in await self.sql.fetch(query, *args)]

    async def value(self, query: str, *args: Any) -> Any:
        """The first column of the first row."""
        return await self.sql.fetchval(query, *args)

    async def until(self, check: Callable[[], Awaitable[Any]], what: str, timeout_s: float = 15) -> Any:
        """Wait for something to become true; raises `DemoFailed` naming it."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = await check()
            if found:
                return found
            if self.fleet is not None and self.fleet.ended:
                raise DemoFailed(f"{what}: the simulated machines' process has ended; see {self.state_dir}/fleet.log")
            if time.monotonic() > deadline:
                raise DemoFailed(f"{what}: did not come within {timeout_s:.0f} s")
            await asyncio.sleep(0.01)

    async def until_sql(self, what: str, query: str, *args: Any, timeout_s: float = 15) -> Any:
        """Wait for a query's first value to be true."""

        async def check() -> Any:
            return await self.value(query, *args)

        return await self.until(check, what, timeout_s)

    # --- renting -------------------------------------------------------------------------------------

    async def request(self, **more: Any) -> str:
        """Ask for an allocation; its id."""
        data = {"account_id": "acme", "ssh_public_key": self.customer_key, "rate_uminor_per_hour": 249_000_000, **more}
        return str((await self.ask("cmd.allocation.request", data))["allocation"]["allocation_id"])

    async def allocation_is(self, allocation_id: str, state: str) -> None:
        """Wait for a state; raises `DemoFailed` as soon as it has ended in another."""

        async def check() -> bool:
            found = (await self.rows("SELECT * FROM public_v1.allocation WHERE allocation_id = $1", allocation_id))[0]
            if found["state"] != state and found["state"] in ("released", "failed"):
                why = found["failure_code"] or found["release_cause"]
                raise DemoFailed(f"{allocation_id} is {found['state']} ({why}), not {state}")
            return bool(found["state"] == state)

        await self.until(check, f"{allocation_id} is {state}")

    async def free_node(self) -> str:
        """A node that could be rented now."""
        query = """SELECT node_id FROM public_v1.node WHERE state = 'ready' AND reserved_by IS NULL
                   AND allocated_to IS NULL AND NOT dirty ORDER BY node_id LIMIT 1"""
        return str(await self.until_sql("a free node", query))

    async def compensations(self, entity: str) -> list[tuple[str, str, str]]:
        """(type, action type, outcome) of an entity's compensations, in order."""
        rows = await self.rows(
            """SELECT c.compensation_type, c.compensated_action_type, c.outcome FROM public_v1.compensation c
               JOIN public_v1.recovery_run r USING (recovery_trace_id) WHERE r.entity = $1
               ORDER BY r.started_at, c.sequence""",
            entity,
        )
        return [(row["compensation_type"], row["compensated_action_type"], row["outcome"]) for row in rows]


async def _quiet(error: Exception) -> None:
    """The runtime is killed on purpose: a lost connection is part of the story."""
    del error
