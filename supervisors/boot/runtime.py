"""One runtime, put together: the only place where ports meet adapters. Start, serve, drain.

Order: servers, lease (a standby waits here and does nothing else), schema, head, actors, writer, NATS, detector,
service. Only then `endpoints.json` and `ready`.
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from nats.aio.client import Client

from actors.allocation_state import Allocation
from actors.node_state import Node, ssh_endpoint
from adapters.nats import connection
from adapters.nats.agents import AgentTasks, Heartbeats
from adapters.nats.publishing import EVENTS, JetStreamPublisher
from adapters.nats.service import CommandService
from adapters.postgres.journal import PostgresJournal
from adapters.postgres.lease import Lease
from adapters.ssh.client import SshClient
from adapters.ssh.client_key import generate_client_key
from adapters.ssh.keys import canonical_host_key, canonical_public_key
from adapters.ssh.runner import SshRunner
from amends.runtime.checks import check_domains, join
from amends.runtime.clock import Clock
from amends.runtime.decision import Context, Decision
from amends.runtime.delivery import RelayStarts, SettleOutbox
from amends.runtime.dispatcher import Dispatcher
from amends.runtime.engine import Engine
from amends.runtime.messages import Envelope
from amends.runtime.parked import ParkedNotifications
from amends.runtime.relay import Relay
from amends.runtime.requests import Requests
from amends.runtime.trunk import ChildSpec, Supervisor, SupervisorSpec
from amends.runtime.writer import JournalWriter
from amends.values.limits import Limits
from amends.values.records import TABLES, OutboxRow, StepRow
from supervisors.boot.auth import Gatekeeper, operators
from supervisors.boot.front import Front
from supervisors.boot.loading import load_actors, load_pool, resume
from supervisors.boot.servers import Servers
from supervisors.detector import Detector
from supervisors.endpoints import commands, delivery_commands
from supervisors.pool import Pool
from supervisors.rental import RENTAL
from supervisors.settings import Settings, load_policy

log = logging.getLogger("amends.boot")
CLEANUP_STATES = ("ready", "draining", "quarantined", "registered")


class Runtime:
    """A running Amends. `start` returns when it is ready to serve; `run` until it is stopped or fenced."""

    def __init__(self, settings: Settings, *, say: Callable[[str], None] = lambda line: None) -> None:
        self.settings, self.say = settings, say
        self.state_dir = Path(settings.state_dir).absolute()
        self.instance_id = secrets.token_hex(8)
        self.version = version("amends")
        self.servers = Servers(settings, self.state_dir)
        self.domains = (RENTAL,)
        self.policy, self._policy_text = load_policy(settings)
        self.pool = Pool(self.policy)
        self._tree: Supervisor | None = None
        self._tree_task: asyncio.Task[None] | None = None
        self._extra_connections: list[Client] = []
        self.recovered: dict[str, int] = {}

    # --- start ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Come up, or wait as a standby; raises `BadConfiguration`, `BadDomain`, `Unavailable`."""
        check_domains(self.domains, _has_runbook)
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self.servers.start()
        self.lease = Lease(self.servers.dsn, self.instance_id)
        if await self.lease.acquire_now() is None:
            self.say("standby: another runtime holds the lease; waiting")
            await self.lease.acquire()
        await self._open_journal()
        await self._load()
        await self._connect()
        await self._serve()

    async def _open_journal(self) -> None:
        await self.lease.prepare(self.instance_id, self.version, time.time_ns() // 1000)
        kinds = {kind.name: kind for domain in self.domains for kind in domain.kinds}
        tables = {**TABLES}
        for domain in self.domains:
            tables |= domain.tables
        state_tables = {kind.name: kind.table for kind in kinds.values()}
        self.journal = PostgresJournal(self.servers.dsn, self.lease.epoch, state_tables, list(tables.values()))
        head = await self.journal.head()
        floor = (await self.journal.fetch("read_head"))[0]["at_us"]
        self.clock = Clock(lambda: time.time_ns() // 1000, lambda: time.monotonic_ns() // 1000, floor)
        matrix = join(self.domains)
        now = self.clock.now_us()
        await self.journal.execute("store_document", matrix.sha256, "matrix", matrix.body().decode(), now)
        policy = msgspec.json.encode({"toml": self._policy_text.decode()}).decode()
        await self.journal.execute("store_document", self.policy.sha256, "policy", policy, now)
        limits = Limits(self.settings.limits(), seed=secrets.randbits(32))
        self.context = Context(
            epoch=self.lease.epoch, limits=limits, matrix=matrix, facts=self.pool, policy_sha256=self.policy.sha256
        )
        for domain in self.domains:
            self.context.case_commands |= {case.kind: case.commands for case in domain.cases}
        self.engine = Engine(kinds, self.context, self.clock.now_us, self._read_actor)
        self.writer = JournalWriter(self.journal, head, tables, self.engine.holds)
        self.engine.attach(self.writer)

    async def _load(self) -> None:
        self.pool.attach(self.engine)
        count = await load_actors(self.engine, self.domains, self.journal.live_actors)
        await load_pool(self.pool, self.journal.fetch)
        log.info("loaded %d actors", count)

    async def _connect(self) -> None:
        urls, options = self.servers.nats_urls, nats_options(self.settings)
        self.nats = await connection.connect(urls, name=f"amends-{self.lease.epoch}", **options)
        self._canary = await connection.connect(urls, name=f"amends-canary-{self.lease.epoch}", **options)
        self.publisher = JetStreamPublisher(self.nats)
        if self.settings.nats.auto_create_streams == "startup":
            await self.publisher.create_streams()
        self.relay = Relay(self.engine, self.publisher, EVENTS, self.clock.now_us)
        self.parked = ParkedNotifications(self.engine, self.publisher, self.clock.now_us)
        self.detector = Detector(self.engine, monotonic=time.monotonic, linked=lambda: self.nats.is_connected)
        self.pool.is_heard = self.detector.is_heard
        self.pool.on_node = self._on_node
        for node_id, node in self.engine.store.items("node"):
            self.detector.on_node(node_id, node)  # type: ignore[arg-type]
        for notification_id, notification in self.engine.store.items("notification"):
            if notification.state == "parked":
                self.parked.accept(notification_id)
        self.agents = AgentTasks(self.nats, self.lease.epoch, self.clock.now_us)
        self.heartbeats = Heartbeats(self.nats, self.detector.heard)
        self.ssh = SshClient(self._client_key(), connect_timeout_ms=self.settings.ssh.connect_timeout_ms,
                             customer_key_options=self.settings.ssh.customer_key_options)  # fmt: skip
        runners = {
            "ssh": SshRunner(self.ssh, self._endpoint, default_user=self.settings.ssh.user),
            "agent": self.agents,
            "bus": self.publisher,
        }
        specs = {step.name: step for domain in self.domains for step in domain.steps}
        self.dispatcher = Dispatcher(self.engine, specs, runners, may_act=self.lease.may_act, gate=self._gate)
        self.engine.listeners += [self.dispatcher.follow, self.relay.follow, self.parked.follow, self._settled_outbox]

    async def _serve(self) -> None:
        known, self.operator_token = operators(self.settings, self.state_dir)
        self.gate = Gatekeeper(self.settings, known)
        self.front = Front(self)
        await self.front.start()
        table = [
            *commands(self.engine, self.pool, lambda text: canonical_public_key(text)[0],
                     lambda text: canonical_host_key(text)[0]),
            *delivery_commands(self._records),
            *self.front.endpoints(),
        ]
        self.requests = Requests(self.engine, self.gate, self._kept)
        self.service = CommandService(self.nats, self.requests, table, self.version)
        self._tree = Supervisor(SupervisorSpec(name="amends", children=self._children()))
        self._tree_task = asyncio.create_task(self._tree.run(), name="trunk")
        started = asyncio.create_task(self._tree.started.wait())
        await asyncio.wait({started, self._tree_task}, return_when=asyncio.FIRST_COMPLETED)
        if self._tree_task.done():
            started.cancel()
            await self._tree_task
        self.engine.tell("stream", EVENTS, Envelope(RelayStarts(), priority=True))
        await self.heartbeats.start()
        await self.agents.start()
        await self.nats.subscribe(f"amends.v1.canary.{self.instance_id}", cb=self._on_canary)
        self.recovered = await resume(self.engine, self.dispatcher, self.relay, self.journal.fetch)
        self.pool.loaded()
        await self.service.start()
        self.front.write_endpoints()

    # --- while it runs -------------------------------------------------------------------------------

    def _children(self) -> list[ChildSpec]:
        engine = self.engine
        return [
            *self.servers.children(),
            ChildSpec(name="lease", run=self.lease.run, detail=lambda: {"age_ms": int(self.lease.age_s * 1000)}),
            ChildSpec(name="journal", run=self.writer.run, detail=lambda: {"waiting": self.writer.waiting}),
            ChildSpec(name="timers", run=engine.timers.run, detail=lambda: {"armed": len(engine.timers)}),
            ChildSpec(name="steps", run=self.dispatcher.run, detail=lambda: {
                "running": self.dispatcher.running, "waiting": self.dispatcher.waiting}),
            ChildSpec(name="relay", run=self.relay.run, detail=lambda: {"pending": self.relay.pending}),
            ChildSpec(name="parked", run=self.parked.run, detail=lambda: {"parked": len(self.parked)}),
            ChildSpec(name="canary", run=self._send_canary),
            ChildSpec(name="detector", run=self.detector.run, detail=lambda: {
                "watched": self.detector.watched, "blind": self.detector.blind}),
            ChildSpec(name="last-seen", run=self.detector.checkpoint),
            ChildSpec(name="refusals", run=lambda: self.gate.audit(engine)),
            ChildSpec(name="janitor", run=self._forget_replies),
            *self.front.children(),
        ]  # fmt: skip

    async def run(self) -> None:
        """Until the tree ends: cancelled, fenced, or out of budget."""
        assert self._tree_task is not None
        await asyncio.shield(self._tree_task)

    def tree(self) -> dict[str, Any]:
        """The live supervision tree, entities counted under their supervisors."""
        trunk = self._tree.tree() if self._tree is not None else {}
        counts = self.engine.store.counts()
        entities = [
            {"name": kind, "state": "supervised", "in_memory": count, "restarts": 0} for kind, count in counts.items()
        ]
        policy = self.engine.policy
        entity_tree = {
            "name": "entities", "strategy": "one_for_one", "children": entities, "crashes": policy.crashes,
            "quarantined_messages": policy.quarantined, "mailboxes": self.engine.waiting(),
        }  # fmt: skip
        return {**trunk, "children": [*trunk.get("children", []), entity_tree]}

    # --- stop ----------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Drain within `drain_timeout_ms`: no new work, running steps finish or stay intended, all is committed."""
        budget_s = self.context.limits("drain_timeout_ms") / 1000
        deadline = time.monotonic() + budget_s * 0.9
        self.engine.stopping = True
        await self.service.stop(budget_s * 0.2)
        await self.dispatcher.drain(max(0.1, deadline - time.monotonic() - budget_s * 0.3))
        self.gate.flush(self.engine)
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                await self.writer.drained()
        except TimeoutError:
            log.warning("stopped with %d turns not committed; they will be decided again", self.writer.waiting)
        await self.close()

    async def close(self) -> None:
        """Let everything go."""
        if self._tree_task is not None:
            self._tree_task.cancel()
            await asyncio.wait({self._tree_task}, timeout=5)
        await self.front.stop()
        await self.ssh.close()
        await connection.close(self.nats)
        await connection.close(self._canary)
        await self.journal.aclose()
        await self.lease.aclose()
        await self.servers.stop()

    # --- hooks ---------------------------------------------------------------------------------------

    def _client_key(self) -> Path:
        if self.settings.ssh.client_key:
            return Path(self.settings.ssh.client_key)
        path = self.state_dir / "ssh_client_key"
        generate_client_key(path)
        return path

    def _endpoint(self, node_id: str) -> dict[str, Any] | None:
        node = self.pool.node(node_id)
        return ssh_endpoint(node) if node is not None else None

    def _gate(self, row: StepRow) -> bool:
        """While a node is suspect or offline its cleanups wait and spend no try (R04)."""
        if '"cleanup":true' not in row.args:
            return True
        node = self.pool.node(row.target.partition(":")[2])
        return node is None or node.state in CLEANUP_STATES

    def _on_node(self, node_id: str, node: Node) -> None:
        self.detector.on_node(node_id, node)
        if node.state in CLEANUP_STATES:
            self.dispatcher.wake(f"node:{node_id}")

    def _settled_outbox(self, decision: Decision) -> None:
        message = decision.env.message
        if isinstance(message, SettleOutbox):
            task = asyncio.ensure_future(self._readmit_outbox(message))
            task.add_done_callback(lambda done: done.exception())

    async def _readmit_outbox(self, message: SettleOutbox) -> None:
        row = (await self.journal.fetch("read_outbox_row", message.outbox_id))[0]
        event = OutboxRow(**{name: row[name] for name in OutboxRow.__struct_fields__})
        self.relay.settle(event, skip=message.skip)

    def _read_actor(self, kind: str, identifier: str, then: Callable[[bytes | None], None]) -> None:
        async def read() -> None:
            while True:
                try:
                    found = await self.journal.read_actor(kind, identifier)
                except ConnectionError:
                    await asyncio.sleep(0.2)
                else:
                    then(found.body if found is not None else None)
                    return

        task = asyncio.create_task(read(), name="read-actor")
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    _reads: set["asyncio.Task[None]"] = set()

    async def _records(self, name: str, *args: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in await self.journal.fetch(name, *args)]

    async def _kept(self, caller: str, key: str) -> dict[str, Any] | None:
        rows = await self._records("kept_reply", caller, key)
        return rows[0] if rows else None

    async def _on_canary(self, message: Any) -> None:
        self.detector.canary()

    async def _send_canary(self) -> None:
        period = self.context.limits("heartbeat_interval_ms") / 1000
        while True:
            if self._canary.is_connected:
                await self._canary.publish(f"amends.v1.canary.{self.instance_id}", b"")
            await asyncio.sleep(period)

    async def _forget_replies(self) -> None:
        while True:
            await asyncio.sleep(3600)
            await self.journal.execute("forget_replies", self.clock.now_us() - 7 * 86_400_000_000)

    def account_of(self, allocation_id: str) -> str | None:
        """The account an allocation in memory belongs to."""
        state = self.engine.store.get("allocation", allocation_id)
        return state.account_id if isinstance(state, Allocation) else None


def nats_options(settings: Settings) -> dict[str, Any]:
    """nats-py's options from `[nats]`."""
    found = settings.nats
    pairs = {"user": found.user, "password": found.password, "token": found.token, "user_credentials": found.creds_file,
             "nkeys_seed": found.nkey_seed_file}  # fmt: skip
    return {name: value for name, value in pairs.items() if value}


def _has_runbook(name: str) -> bool:
    return True


Reader = Callable[..., Awaitable[Sequence[Any]]]
PID = os.getpid
