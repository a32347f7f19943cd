"""The demo's hands: the servers, runtimes as processes, the fleet, and what any outsider has: NATS, SQL, SSH.

Postgres and NATS are the demo's own and named to the runtimes, as a platform would: embedded ones end with the runtime
that started them, and then no second one could take over.
"""

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import asyncssh
import nats
from aiohttp import ClientError, ClientSession
from nats.aio.client import Client
from nats.errors import Error as NatsError

from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.postgres import EmbeddedPostgres
from adapters.embedded.process import death_signal_prefix
from adapters.simulated.fleet_client import Fleet
from adapters.simulated.stripe_book import API_KEY
from adapters.simulated.stripe_client import StripeProcess
from amends.values.errors import Unavailable
from amends.values.inboxes import inbox_prefix
from supervisors.closing import Parts
from supervisors.demo.host import StorageHost
from supervisors.demo.users import BusUsers
from supervisors.policy_file import BUILT_IN
from supervisors.toml_lines import quoted

READY_WITHIN_S = 60
HOUR, SECOND = "window_us = 3_600_000_000", "window_us = 1_000_000"
END_WITHIN_S = 12  # a runtime of the acceptance profile ends itself within 8 s
CLOSE_WITHIN_S = 60
CONFIG = """profile = "acceptance"
state_dir = {state_dir}
policy_file = {policy}  # the built-in one, but for windows of a second
callers = "open"  # only the users of the file are let in by NATS
[postgres]
dsn = {dsn}
[nats]
servers = [{nats}]
[http]
listen = "127.0.0.1:0"
[stripe]
api_key = {stripe_key}
api_base = {stripe_url}
mirror_credits = true
webhook_secrets = [{stripe_secret}]
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


class Refused(DemoFailed):
    """A request was refused; `code` says why."""

    def __init__(self, subject: str, error: dict[str, Any]) -> None:
        super().__init__(f"{subject} was refused: {error}")
        self.code = str(error["code"])


class Site:
    """Servers, a runtime or two, and their fleet, below `state_dir`.

    `keeps`: all goes on when the story has been told; `stays`: the state is there when the demo has ended.
    """

    def __init__(self, state_dir: Path, nodes: int, *, keeps: bool = False, stays: bool = False) -> None:
        self.state_dir, self.keeps, self.stays = state_dir, keeps, stays or keeps
        self.users = BusUsers(state_dir, [f"node-{number}" for number in range(1, nodes + 1)])
        self.endpoints: dict[str, Any] = {}
        self.customer_key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
        self.admin: Client  # the keeper of the streams, to break them by hand
        self.front: Client
        self.operator: Client
        self.sql: asyncpg.Connection[Any]
        self.fleet: Fleet | None = None
        self.stripe: StripeProcess
        self.host: StorageHost
        self._secret = f"whsec_{secrets.token_hex(16)}"
        self._postgres = EmbeddedPostgres(state_dir)
        self._nats = EmbeddedNats(state_dir, config_extra=self.users.file.read_text(encoding="utf-8"))
        self._process: asyncio.subprocess.Process | None = None
        self._standby: asyncio.subprocess.Process | None = None

    # --- processes -----------------------------------------------------------------------------------

    async def start_servers(self) -> float:
        """Start Postgres and NATS; milliseconds it took. Raises `Unavailable`."""
        began = time.monotonic()
        await self._postgres.start()
        await self._nats.start()
        self.stripe = await StripeProcess.spawn(
            self.state_dir / "stripe.json", self.state_dir / "stripe.log", death_signal_prefix(None)
        )
        self.host = await StorageHost.spawn(self.state_dir, self.nats_url, self.users)
        return (time.monotonic() - began) * 1000

    async def start_runtime(self) -> float:
        """Start `amends run` and wait for `ready`; milliseconds it took. Raises `Unavailable`."""
        began = time.monotonic()
        self._process = await self._spawned()
        # One that an earlier demo left may be dying still: then this one stands by for a moment.
        while await self._line(self._process) != "ready":
            pass
        await self._read_endpoints()
        return (time.monotonic() - began) * 1000

    async def start_standby(self) -> None:
        """Start a second `amends run` beside the first, and wait until it stands by. Raises `Unavailable`."""
        self._standby = await self._spawned()
        said = await self._line(self._standby)
        if not said.startswith("standby"):
            raise Unavailable(f"the second runtime did not stand by, it said {said!r}; see {self.log_file}")

    async def taken_over(self) -> None:
        """Wait for the standby's `ready`: it is the runtime from now on. Raises `Unavailable`."""
        assert self._standby is not None
        while await self._line(self._standby) != "ready":
            pass
        self._process, self._standby = self._standby, None
        await self._read_endpoints()

    async def _spawned(self) -> asyncio.subprocess.Process:
        config = self.state_dir / "amends.toml"
        policy = self.state_dir / "policy.toml"
        policy.write_text(BUILT_IN.read_text(encoding="utf-8").replace(HOUR, SECOND), encoding="utf-8")
        values = {
            "state_dir": str(self.state_dir), "dsn": self._postgres.dsn, "nats": self._nats.url, "policy": str(policy),
            "stripe_key": API_KEY, "stripe_url": self.stripe.url, "stripe_secret": self._secret,
        }  # fmt: skip
        config.write_text(CONFIG.format(**{key: quoted(value) for key, value in values.items()}), encoding="utf-8")
        env = dict(os.environ)
        for prefix, name in (("AMENDS_NATS", "runtime"), ("AMENDS_NATS_OPERATOR", "operator")):
            found = self.users.of(name)
            env |= {f"{prefix}_USER": found["user"], f"{prefix}_PASSWORD": found["password"]}
        with self.log_file.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *death_signal_prefix(None), sys.executable, "-m", "supervisors.boot", "run", "--config", str(config),
                stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True, env=env,
            )  # fmt: skip

    async def _line(self, process: asyncio.subprocess.Process) -> str:
        """The next line that a runtime says; raises `Unavailable` where it ends or is silent for too long."""
        assert process.stdout is not None
        async with asyncio.timeout(READY_WITHIN_S):
            line = await process.stdout.readline()
        if not line:
            end = self.log_file.read_text(encoding="utf-8")[-2000:]
            raise Unavailable(f"the runtime did not start; the end of {self.log_file}:\n{end}")
        return line.decode().strip()

    async def _read_endpoints(self) -> None:
        """Where the runtime is now; Stripe's webhooks go there from now on."""
        self.endpoints = json.loads((self.state_dir / "endpoints.json").read_text(encoding="utf-8"))
        await self.stripe.deliver_to(f"{self.endpoints['http_url']}/stripe/webhook", self._secret)

    @property
    def nats_url(self) -> str:
        """Where NATS is, without anybody's credentials."""
        return self._nats.url

    @property
    def log_file(self) -> Path:
        """Where the runtimes' own log goes."""
        return self.state_dir / "runtime.log"

    async def connect(self) -> None:
        """Connections of outsiders; SQL as the superuser of the server, to break things by hand."""
        self.admin, self.front, self.operator = [
            await nats.connect(
                self.nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=_quiet,
                inbox_prefix=inbox_prefix(name), **self.users.of(name),
            )
            for name in ("streams", "front", "operator")
        ]  # fmt: skip
        self.sql = await asyncpg.connect(self._postgres.superuser_dsn)

    async def kill(self) -> None:
        """Kill -9 of the runtime."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def epoch(self) -> int:
        """The epoch of who has the journal."""
        return int(await self.value("SELECT epoch FROM journal_head"))

    async def close(self) -> None:
        """End everything that was started, the runtimes by SIGTERM."""
        parts = Parts()
        parts.opened("Postgres", self._postgres.stop)
        parts.opened("NATS", self._nats.stop)
        if hasattr(self, "stripe"):
            parts.opened("the simulated Stripe", self.stripe.close)
        if hasattr(self, "host"):
            parts.opened("the storage host", self.host.close)
        for name, process in (("the runtime", self._process), ("the second runtime", self._standby)):
            if process is not None:
                parts.opened(name, partial(_ended, process))
        for name in ("admin", "front", "operator"):
            if hasattr(self, name):
                parts.opened(f"{name}'s connection", getattr(self, name).close)
        if self.fleet is not None:
            parts.opened("the simulated machines", self.fleet.close)
        if hasattr(self, "sql"):
            self.sql.terminate()
        await parts.close(CLOSE_WITHIN_S - 5)

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
            raise Refused(subject, body["error"])
        return {"duplicate": body["duplicate"], **body["data"]}

    async def refused(self, subject: str, data: dict[str, Any]) -> str:
        """The code of the refusal; "" where it was ok."""
        try:
            await self.ask(subject, data)
        except Refused as error:
            return error.code
        return ""

    async def make(self, subject: str, data: dict[str, Any]) -> bool:
        """Create what may be there from an earlier run of the demo on the same state; whether it was not."""
        try:
            await self.ask(subject, data)
        except Refused as error:
            if error.code != "already_exists":
                raise
            return False
        return True

    async def login_link(self) -> str:
        """Where the console is, with a key that logs in once."""
        url, headers = self.endpoints["http_url"], {"Authorization": f"Bearer {self.endpoints['operator_token']}"}
        try:
            async with ClientSession() as session, session.post(f"{url}/login/links", headers=headers) as response:
                return f"{url}{(await response.json())['path']}"
        except (ClientError, KeyError, ValueError) as error:
            raise DemoFailed(f"the console gives no link: {str(error) or type(error).__name__}") from error

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


async def _ended(process: asyncio.subprocess.Process) -> None:
    """By SIGTERM; a runtime has a deadline of its own, and one that passes that as well is killed."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(END_WITHIN_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _quiet(error: Exception) -> None:
    """The runtime is killed on purpose: a lost connection is part of the story."""
    del error
