"""The world outside a runtime, for acceptance tests: only NATS, SQL and SSH; the runtime is a process of its own."""

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg
import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import StreamConfig

from adapters.embedded.ports import free_port
from supervisors.policy_file import BUILT_IN
from tests.acceptance.machine import CUSTOMER_KEY, Machine
from tests.directories import with_database
from tests.forked import PIPE, Process, python
from tests.patience import PATIENCE_S
from tests.proof import KILLS, counted

RATE = 249_000_000
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01")
M = TypeVar("M", bound=Machine)
EVENTS, NOTIFICATIONS = "AMENDS_EVT", "AMENDS_NTF"
BY_THE_CLOCK = {
    "audit_log": "WHERE action NOT LIKE 'auth.%' AND action <> 'payments.webhook.rejected'",
    "outbox": "WHERE subject <> 'amends.v1.evt.audit.head.anchored'",
}


async def until(
    check: Callable[[], Awaitable[Any]], what: str, timeout_s: float = PATIENCE_S, pause_s: float = 0.02
) -> Any:
    """Poll until `check` gives something true; the assertion names what did not come."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = await check()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        await asyncio.sleep(pause_s)


class World:
    """A runtime process and everything around it."""

    def __init__(self, state_dir: Path, config: str = "", window_us: int = 0) -> None:
        self.state_dir = state_dir
        self.window_us = window_us  # of the policy; 0: the built-in one's hour
        self.config = config
        self.process: Process | None = None
        self.machines: dict[str, Machine] = {}
        self.endpoints: dict[str, Any] = {}
        self.streams: dict[str, StreamConfig] = {}
        self.planted: set[tuple[str, str]] = set()  # table and key of rows that a test has written by hand
        self.operator_token = ""  # empty: the one the runtime generated
        self.caller_token = ""
        self.nats: Client
        self.sql: asyncpg.Connection[Any]
        self._keys = itertools.count(1)
        self._reading = asyncio.Lock()  # one connection serves one question at a time
        self._names = itertools.count(1)

    # --- the runtime ---------------------------------------------------------------------------------

    command: tuple[str, ...] = ("-m", "supervisors.boot")

    async def start(self) -> None:
        """Start the runtime and wait for `ready`."""
        process = await self._spawn()
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await process.stdout.readline()
        assert line.strip() == b"ready", self.log_text()[-3000:]
        self.endpoints = json.loads((self.state_dir / "endpoints.json").read_text())

    async def _spawn(self) -> Process:
        self.state_dir.mkdir(parents=True, exist_ok=True)
        if "[postgres]" not in self.config:
            await with_database(self.state_dir)
        if not (nats := self.state_dir / "nats").exists():  # its first port is one of this worker's
            nats.mkdir()
            (nats / "port").write_text(str(free_port()))
        file = self.state_dir / "amends.toml"
        head = "" if "profile" in self.config else 'profile = "acceptance"\n'
        top, bracket, tables = self.config.partition("[")  # what stands above the first table stays there
        if self.window_us:
            policy = BUILT_IN.read_text().replace("window_us = 3_600_000_000", f"window_us = {self.window_us}")
            (self.state_dir / "policy.toml").write_text(policy)
            top = f'policy_file = "{self.state_dir}/policy.toml"\n{top}'
        http = '[http]\nlisten = "127.0.0.1:0"\n'
        rest = f"{bracket}{tables}"
        rest = rest.replace("[http]\n", http) if "[http]\n" in rest else http + rest
        file.write_text(f'{head}state_dir = "{self.state_dir}"\n{top}{rest}')
        with (self.state_dir / "runtime.log").open("ab") as log:
            self.process = await python(*self.command, "run", "--config", file, stdout=PIPE, stderr=log)
        return self.process

    async def start_and_kill(self, after_s: float) -> None:
        """Start the killed runtime again, and kill it after so many seconds, ready or not."""
        assert self.process is not None
        await self.process.wait()
        await self._spawn()
        await asyncio.sleep(after_s)
        self.kill()

    def log_text(self) -> str:
        """What the runtime has logged so far."""
        return (self.state_dir / "runtime.log").read_text(errors="replace")

    async def connect(self) -> None:
        """Connect as a caller of the API, and as the superuser of the database to look and to break."""
        self.nats = await nats.connect(
            self.endpoints["nats_url"], max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=_quiet
        )
        await self.open_sql()

    async def open_sql(self) -> None:
        """A superuser's connection for the test's own eyes."""
        self.sql = await self.superuser()

    async def superuser(self) -> "asyncpg.Connection[Any]":
        """Another session of the superuser; the caller closes it."""
        host = parse_qs(urlsplit(self.endpoints["postgres_dsn"]).query)["host"][0]
        connection = await asyncpg.connect(f"postgresql://postgres@/amends?host={host}")
        for name in ("json", "jsonb"):
            await connection.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        return connection

    def kill(self) -> None:
        """End the runtime with SIGKILL."""
        counted[KILLS] += 1
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)

    async def restart(self) -> None:
        """Wait for the killed one to be gone, then start it again on the same state."""
        assert self.process is not None
        await self.process.wait()
        self.sql.terminate()
        await self.start()
        await self.open_sql()
        await until(self._linked, "connected to NATS again")

    async def _linked(self) -> bool:
        return self.nats.is_connected

    async def all_sent(self) -> None:
        """What was published has reached the broker; without that it leaves when this process has the time."""

        async def flushed() -> bool:
            if not self.nats.is_connected:
                return False
            try:
                await self.nats.flush(timeout=1)
            except (NatsError, TimeoutError, OSError):
                return False
            return True

        await until(flushed, "all has been sent")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        """Started and connected; ended afterwards, whatever happens."""
        try:
            await self.start()
            await self.connect()
            yield self
        finally:
            await self.stop()

    async def stop(self) -> None:
        """End everything that was begun."""
        for machine in self.machines.values():
            await machine.stop()
        if hasattr(self, "nats"):
            self.nats.options["max_reconnect_attempts"] = 1  # else a client whose server is gone never lets go
            await self.nats.close()
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
        if hasattr(self, "sql") and not self.sql.is_closed():
            self.sql.terminate()

    def nats_pid(self) -> int:
        """The process id of the embedded NATS server, as it wrote it down itself."""
        (file,) = (self.state_dir / "nats").glob("nats-server_*.ports")
        return int(file.stem.rpartition("_")[2])

    def postgres_pid(self) -> int:
        """The process id of the embedded Postgres' postmaster, as it wrote it down itself."""
        return int((self.state_dir / "postgres" / "data" / "postmaster.pid").read_text().split("\n")[0])

    # --- asking --------------------------------------------------------------------------------------

    def new_key(self) -> str:
        """An Idempotency-Key nobody has used."""
        return f"test-{os.getpid()}-{time.time_ns()}-{next(self._keys)}"

    def new_name(self, prefix: str) -> str:
        """A name that nobody has in this world."""
        return f"{prefix}-{next(self._names)}"

    async def ask(
        self, subject: str, data: Any, *, key: str | None = None, headers: dict[str, str] | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> dict[str, Any]:  # fmt: skip
        """The reply to a request, as parsed JSON. `key` "" sends none; a header with the value "" is left out."""
        head = {"Idempotency-Key": self.new_key() if key is None else key}
        operator = self.operator_token or self.endpoints["operator_token"]
        token = operator if subject.startswith("ops.") else self.caller_token
        head["Authorization"] = f"Bearer {token}" if token else ""
        head = {name: value for name, value in (head | (headers or {})).items() if value}
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        reply = await self.nats.request(f"amends.v1.{subject}", payload, timeout=timeout_s, headers=head or None)
        found: dict[str, Any] = json.loads(reply.data)
        status = (reply.headers or {}).get("Nats-Service-Error-Code")
        assert status == (None if found["ok"] else str(found["error"]["http"])), "the headers say what the body says"
        return found

    async def ask_until(self, subject: str, data: Any, *, key: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The reply to a request that is sent again under its key until somebody answers it for good."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                reply = await self.ask(subject, data, key=key, timeout_s=2)
            except (NatsError, TimeoutError, OSError) as error:
                reply = {"ok": False, "error": {"code": repr(error), "retryable": True}}
            if reply["ok"] or not reply["error"]["retryable"]:
                return reply
            assert time.monotonic() < deadline, f"{subject}: {reply}"
            await asyncio.sleep(0.05)

    async def ok(self, subject: str, data: Any, **options: Any) -> dict[str, Any]:
        """The data of a reply that must be ok."""
        reply = await self.ask(subject, data, **options)
        assert reply["ok"], reply
        found: dict[str, Any] = reply["data"]
        return found

    async def refused(self, subject: str, data: Any, code: str, **options: Any) -> dict[str, Any]:
        """The error of a reply that must be refused with `code`."""
        reply = await self.ask(subject, data, **options)
        assert not reply["ok"], reply
        assert reply["error"]["code"] == code, reply
        found: dict[str, Any] = reply["error"]
        return found

    async def amends(self, *arguments: str) -> str:
        """What the command line prints; it must end well."""
        environment = os.environ | {
            "AMENDS_NATS_SERVERS": self.endpoints["nats_url"],
            "AMENDS_TOKEN": self.operator_token or self.endpoints["operator_token"],
        }
        process = await python("-m", "supervisors.boot", *arguments, env=environment, stdout=PIPE, stderr=PIPE)
        said, complaint = await process.communicate()
        assert process.returncode == 0, complaint.decode()
        return said.decode()

    async def quiet(self) -> None:
        """Wait until nothing is under way: no step, no message, no event, and no notification still to be sent."""

        async def nothing() -> bool:
            under_way = await self.one(
                """SELECT (SELECT count(*) FROM step WHERE state = 'intended') + (SELECT count(*) FROM message)
                        + (SELECT count(*) FROM outbox WHERE state = 'pending')
                        + (SELECT count(*) FROM notifications WHERE state = 'pending') AS rows"""
            )
            return not under_way["rows"]

        await until(nothing, "nothing is under way")

    async def _none_suspected(self) -> bool:
        beating = [machine.node_id for machine in self.machines.values() if machine.is_heard()]
        query = "SELECT 1 FROM public_v1.node WHERE state = 'suspect' AND node_id = ANY ($1)"
        return not await self.rows(query, beating)

    async def counts(self) -> dict[str, int]:
        """How many rows each table has, once nothing is under way; without what a runtime writes by the clock.

        That is its commits, the entry of a minute's refusals, and the event of an anchor. A node that beats and was
        suspected, as over a restart, is heard again first: that is a turn.
        """
        await until(self._none_suspected, "the nodes that beat are heard")
        await self.quiet()
        tables = await self.rows(
            "SELECT relname AS tablename FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'journal_digest' ORDER BY relname"
        )
        return {
            name: await self.sql.fetchval(f'SELECT count(*) FROM "{name}" {BY_THE_CLOCK.get(name, "")}')
            for name in (row["tablename"] for row in tables)
        }

    async def endpoint_roles(self) -> dict[str, str]:
        """Every subject the service publishes, with the role it asks for."""
        info = json.loads((await self.nats.request("$SRV.INFO.amends", b"", timeout=PATIENCE_S)).data)
        return {
            endpoint["subject"].removeprefix("amends.v1."): endpoint["metadata"]["role"]
            for endpoint in info["endpoints"]
            if "*" not in endpoint["subject"]
        }

    async def rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        """What the database says."""
        async with self._reading:
            return [dict(row) for row in await self.sql.fetch(query, *args)]

    async def one(self, query: str, *args: Any) -> dict[str, Any]:
        """Its only row."""
        rows = await self.rows(query, *args)
        assert len(rows) == 1, rows
        return rows[0]

    # --- streams -------------------------------------------------------------------------------------

    async def stored(self, stream: str) -> list[dict[str, Any]]:
        """Every message a stream holds: subject, msg_id, body; in its order."""
        js = self.nats.jetstream()
        found = []
        info = await js.stream_info(stream)
        for seq in range(info.state.first_seq or 1, info.state.last_seq + 1):
            message = await js.get_msg(stream, seq)
            headers = message.headers or {}
            body = json.loads(message.data or b"null")
            assert TRACEPARENT.fullmatch(headers.get("traceparent", "")), headers  # W3C: no id may be empty
            found.append({"subject": message.subject, "msg_id": headers.get("Nats-Msg-Id"), "body": body})
        return found

    @contextlib.asynccontextmanager
    async def without_stream(self, stream: str) -> AsyncIterator[None]:
        """The stream is deleted; at the end it is made again with the configuration it had."""
        await self.delete_stream(stream)
        try:
            yield
        finally:
            await self.restore_stream(stream)

    async def delete_stream(self, stream: str) -> None:
        """Delete a stream with all it holds; its configuration is remembered."""
        js = self.nats.jetstream()
        self.streams[stream] = (await js.stream_info(stream)).config
        await js.delete_stream(stream)

    async def restore_stream(self, stream: str) -> None:
        """Make a deleted stream again with the configuration it had."""
        await self.nats.jetstream().add_stream(config=self.streams[stream])

    async def has_stream(self, stream: str) -> bool:
        """Whether the broker knows the stream."""
        try:
            await self.nats.jetstream().stream_info(stream)
        except NatsError:
            return False
        return True

    # --- the fleet and rentals -----------------------------------------------------------------------

    async def add_machine(self, node_id: str = "", *, ready: bool = True, zone: str = "a") -> Machine:
        """A machine that beats and is registered."""
        assert self.process is not None
        assert self.process.returncode is None, f"the runtime has ended: {self.log_text()[-3000:]}"
        node_id = node_id or self.new_name("n")
        return await self.enlist(Machine(self, node_id), ready=ready, zone=zone)

    async def enlist(self, machine: M, *, ready: bool = True, zone: str = "a") -> M:
        """Start a machine and register it."""
        self.machines[machine.node_id] = machine
        await machine.start()
        ssh = {"host": "127.0.0.1", "port": machine.ssh_port, "host_key": machine.ssh.host_key}
        await self.ok("cmd.node.register", {"node_id": machine.node_id, "ssh": ssh, "labels": {"zone": zone}})
        if ready:
            await self.node_is(machine.node_id, "ready")
        return machine

    async def node(self, node_id: str) -> dict[str, Any]:
        """The node's row."""
        return await self.one("SELECT * FROM public_v1.node WHERE node_id = $1", node_id)

    async def node_is(self, node_id: str, state: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait for a state of the node."""
        seen: dict[str, Any] = {}

        async def check() -> Any:
            seen.update(await self.node(node_id))
            return seen["state"] == state

        try:
            await until(check, f"node {node_id} is {state}", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {seen}") from None
        return seen

    async def account(self, account_id: str = "") -> str:
        """A new account."""
        account_id = account_id or self.new_name("acct")
        await self.ok("cmd.account.create", {"account_id": account_id, "currency": "usd"})
        return account_id

    async def request(self, account_id: str = "acme", **more: Any) -> str:
        """Ask for an allocation; its id."""
        data = {"account_id": account_id, "ssh_public_key": CUSTOMER_KEY, "rate_uminor_per_hour": RATE, **more}
        allocation_id: str = (await self.ok("cmd.allocation.request", data))["allocation"]["allocation_id"]
        return allocation_id

    async def allocation(self, allocation_id: str) -> dict[str, Any]:
        """The allocation's row."""
        return await self.one("SELECT * FROM public_v1.allocation WHERE allocation_id = $1", allocation_id)

    async def allocation_is(self, allocation_id: str, *states: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait for one of these states of the allocation."""
        seen = {"state": ""}

        async def check() -> Any:
            seen.update(await self.allocation(allocation_id))
            return seen if seen["state"] in states else None

        try:
            return dict(await until(check, f"{allocation_id} is {'/'.join(states)}", timeout_s))
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {seen}") from None

    async def rent(self, account_id: str = "acme", **more: Any) -> str:
        """An active allocation; its id."""
        allocation_id = await self.request(account_id, **more)
        await self.allocation_is(allocation_id, "active")
        return allocation_id

    async def release(self, allocation_id: str) -> dict[str, Any]:
        """Release; the reply's data."""
        return await self.ok("cmd.allocation.release", {"allocation_id": allocation_id})

    async def cleaned(self, allocation_id: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait until it has ended and owes nothing."""

        async def check() -> Any:
            row = await self.allocation(allocation_id)
            return row if row["state"] in ("released", "failed") and not row["cleanup_pending"] else None

        row: dict[str, Any] = await until(check, f"{allocation_id} has ended and is clean", timeout_s)
        return row


async def _quiet(error: Exception) -> None:
    """A test breaks connections on purpose; the client need not print that."""
