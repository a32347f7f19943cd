"""One rental runtime, put together: the only place where ports meet adapters. Start, serve, drain.

Order: servers, lease (a standby waits here and does nothing else), schema, journal, actors, NATS, what was left over,
services, and last the commands. Only then `endpoints.json` and `ready`.
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from actors.node.state import ssh_endpoint
from adapters.nats import connection
from adapters.nats.agents import AgentTasks, Heartbeats
from adapters.nats.answers import Answers
from adapters.nats.publishing import JetStreamPublisher
from adapters.nats.service import CommandService
from adapters.otel.environment import export_target, resource_of
from adapters.postgres.journal import journal_of
from adapters.postgres.lease import Lease
from adapters.postgres.reading import ENTITIES, ReadSide
from adapters.ssh.client import SshClient
from adapters.ssh.keys import canonical_host_key, canonical_public_key
from adapters.ssh.runner import SshRunner
from amends.delivery.notices import NoticeRunner
from amends.ports.steps import StepRunner
from amends.runtime.trunk import ChildSpec, Supervisor, SupervisorSpec
from amends.values.errors import Unavailable
from amends.values.limits import Limits
from supervisors.api.endpoints import checks, commands, finders
from supervisors.api.replies import data_schema
from supervisors.boot.anchors import Anchors
from supervisors.boot.auth import Gatekeeper, operators
from supervisors.boot.client_key import ClientKey
from supervisors.boot.collector import spare_collector
from supervisors.boot.counts import Counts
from supervisors.boot.front import NOT_BUILT, Front
from supervisors.boot.holders import Holders
from supervisors.boot.servers import Servers
from supervisors.boot.standby import Waiting
from supervisors.bus_admin import BusAdmin, Republishes
from supervisors.closing import CLOSE_S, Parts
from supervisors.core import Core
from supervisors.nats_options import nats_options
from supervisors.runbooks import runbook
from supervisors.settings import Settings, load_policy

log = logging.getLogger("amends.boot")


class Runtime:
    """A running Amends. `start` returns when it is ready to serve; `run` until it is stopped or fenced."""

    def __init__(
        self, settings: Settings, *, say: Callable[[str], None] = lambda line: None, accept_new_ssh_key: bool = False
    ) -> None:
        self.settings, self.say = settings, say
        self._accept_new_ssh_key = accept_new_ssh_key
        self.took_over = False  # whether another runtime held the lease when this one came
        self.state_dir = Path(settings.state_dir).absolute()
        self.instance_id = secrets.token_hex(8)
        self.version = version("amends")
        self.servers = Servers(settings, self.state_dir)
        self.policy, self._policy_text = load_policy(settings)
        self.otlp = export_target(settings.otlp.endpoint, settings.otlp.headers, os.environ)
        self._resource = resource_of(os.environ)
        self.core = Core(
            self.policy, Limits(settings.limits(), seed=secrets.randbits(32)),
            has_runbook=lambda name: runbook(name) is not None, domain_label=settings.detector.domain_label,
        )  # fmt: skip
        self.pool, self.kernel = self.core.pool, self.core.kernel
        self._nats_closed = asyncio.Event()
        self._closed_why = ""
        self.parts = Parts()
        self._tree: Supervisor | None = None
        self._tree_task: asyncio.Task[None] | None = None

    # --- start ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Come up, or wait as a standby; raises `BadConfiguration`, `Unavailable`."""
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.key = ClientKey(self.settings, self.state_dir, accept_new=self._accept_new_ssh_key)
        self.kernel.notary = Anchors(self.settings, self.state_dir)
        log.info("using %s", self.servers.said)
        await self.servers.start(self.parts)
        await self.key.look(self.servers.dsn)
        holders = Holders(self.state_dir, self.instance_id)
        self.parts.opened("state directory", holders.aclose)
        holders.enter()
        lease = Lease(self.servers.dsn, self.instance_id, holders.is_dead)
        self.parts.opened("lease", lease.aclose)
        if await lease.acquire_now() is None:
            await self._stand_by(lease)
        await lease.prepare(self.instance_id, self.version, time.time_ns() // 1000, self._resource)
        kernel = self.kernel
        self.parts.opened("journal", kernel.aclose)
        self.journal = journal_of(self.servers.dsn, lease.epoch, kernel.domains, role=lease.role)
        self.role = lease.role  # what its sessions work as
        self.read = ReadSide(self.servers.dsn, role=lease.role)  # the counts' and the republishes' questions
        self.parts.opened("reads", self.read.aclose)
        count = await self.core.load(self.journal, lease)
        await self.key.claim(self.journal, kernel.clock.now_us())
        policy = msgspec.json.encode({"toml": self._policy_text.decode()}).decode()
        await kernel.store_document("policy", self.policy.sha256, policy)
        await self._connect()
        await self._serve()
        spare_collector()
        log.info("epoch %d: %d actors, resumed %s", lease.epoch, count, kernel.recovered)

    async def _stand_by(self, lease: Lease) -> None:
        self.took_over = True
        waiting = Waiting(self.settings.http.listen)
        self.parts.opened("standby's HTTP server", waiting.stop)
        await waiting.start()
        self.say("standby: another runtime holds the lease; waiting")
        await lease.acquire()
        await waiting.stop()

    async def _connect(self) -> None:
        urls, options = self.servers.nats_urls, nats_options(self.settings)
        epoch = self.kernel.lease.epoch
        self.nats = await connection.connect(urls, name=f"amends-{epoch}", closed=self._on_closed, **options)
        self.parts.opened("NATS connection", lambda: connection.close(self.nats))
        self._canary = await connection.connect(urls, name=f"amends-canary-{epoch}", closed=self._on_closed, **options)
        self.parts.opened("canary's connection", lambda: connection.close(self._canary))
        publisher = JetStreamPublisher(self.nats)
        if self.settings.nats.auto_create_streams == "startup":
            await publisher.create_streams()
        self.publisher = publisher
        self.kernel.peer_clocks["nats"] = publisher.clock_us
        engine = self.kernel.engine
        await self.core.watch(lambda: self.nats.is_connected)
        self.detector = self.core.detector
        may_act = self.kernel.lease.may_act
        self.agents = AgentTasks(self.nats, epoch, self.kernel.clock.now_us, self.pool.node_epoch, may_act)
        self.heartbeats = Heartbeats(self.detector.heard)
        beats = await connection.connect(
            urls, name=f"amends-heartbeats-{epoch}", closed=self._on_closed, dropped=self.heartbeats.drop, **options,
        )  # fmt: skip
        self.parts.opened("heartbeats' connection", lambda: connection.close(beats))
        self._beats = beats
        self.ssh = SshClient(
            self.key.path, connect_timeout_ms=self.settings.ssh.connect_timeout_ms,
            customer_key_options=self.settings.ssh.customer_key_options,
        )  # fmt: skip
        self.parts.opened("SSH connections", self.ssh.close)
        ssh = SshRunner(self.ssh, self._endpoint, default_user=self.settings.ssh.user)
        self.counts = Counts(self.read.rows)
        await self.counts.load()
        engine.listeners.append(self.counts.follow)
        self.republishes = Republishes(self.read.rows)
        engine.listeners.append(self.republishes.follow)
        admin = BusAdmin(publisher, self.journal, may_act)
        runners: dict[str, StepRunner] = {
            "ssh": ssh,
            "agent": self.agents,
            "bus": NoticeRunner(publisher),
            "bus-admin": admin,
        }
        self.core.wire(runners, publisher, bus_is_there=lambda: self.nats.is_connected)

    async def _serve(self) -> None:
        known, self.operator_token = operators(self.settings, self.state_dir)
        self.gate = Gatekeeper(self.settings, known)
        self.front = Front(self)
        self.parts.opened("HTTP server and reads", self.front.stop)
        await self.front.start()
        kernel = self.kernel
        table = [
            *commands(
                kernel.domains,
                checks(lambda text: canonical_public_key(text)[0], lambda text: canonical_host_key(text)[0],
                       self.settings.prices),
                finders(self.journal), {"republish": self.republishes.outcome},
            ),
            *self.front.endpoints(),
        ]  # fmt: skip
        self.requests = self.core.requests(self.gate)
        self.answers = Answers(
            self.settings.nats.inbox_prefixes, lambda subject: self.gate.count("anonymous", "reply_subject_refused"),
            silent=lambda: not kernel.lease.may_answer(),
        )  # fmt: skip
        columns = {each: await self.front.read.columns(each) for each in ENTITIES if each not in NOT_BUILT}
        self.service = CommandService(
            self.nats, self.requests, table, self.version, self.answers, lambda each: data_schema(each, columns),
            queue_group=f"amends.{kernel.lease.epoch}",
        )  # fmt: skip
        await self.agents.start()  # what the steps taken up hear from agents must not pass unheard
        await kernel.resume()
        self._tree = Supervisor(SupervisorSpec(name="amends", children=self._children()))
        self._tree_task = asyncio.create_task(self._tree.run(), name="trunk")
        self.parts.opened("chain", self._close_chain)  # closed right after the tree, when nothing can commit any more
        self.parts.opened("supervision tree", self._end_tree)
        started = asyncio.create_task(self._tree.started.wait())
        await asyncio.wait({started, self._tree_task}, return_when=asyncio.FIRST_COMPLETED)
        if self._tree_task.done():
            started.cancel()
            await self._tree_task
        self.key.audit(kernel)
        await self.heartbeats.start(self._beats)
        await self.nats.subscribe(f"amends.v1.canary.{self.instance_id}", cb=self._on_canary)
        self.pool.loaded()
        await self.service.start()
        await self.front.write_endpoints()

    # --- while it runs -------------------------------------------------------------------------------

    def _children(self) -> list[ChildSpec]:
        engine = self.kernel.engine
        return [
            *self.servers.children(),
            *self.kernel.children(),
            ChildSpec(name="nats", run=self._until_closed, fatal=True, detail=lambda: {
                "connected": self.nats.is_connected}),
            ChildSpec(name="canary", run=self._send_canary),
            *self.core.children(),
            ChildSpec(name="violations", run=self.counts.watch_violations),
            ChildSpec(name="refusals", run=lambda: self.gate.audit(engine)),
            *self.front.children(),
        ]  # fmt: skip

    async def run(self) -> None:
        """Until the tree ends: cancelled, fenced, or out of budget."""
        assert self._tree_task is not None
        await asyncio.shield(self._tree_task)

    @property
    def restarts(self) -> dict[str, int]:
        """How often each service was started again."""
        return self._tree.restarts if self._tree is not None else {}

    def tree(self) -> dict[str, Any]:
        """The live supervision tree, entities counted under their supervisor."""
        trunk = self._tree.tree() if self._tree is not None else {}
        engine = self.kernel.engine
        entities = [
            {"name": kind, "state": "supervised", "in_memory": count, "restarts": 0}
            for kind, count in engine.store.counts().items()
        ]
        entity_tree = {
            "name": "entities", "strategy": "one_for_one", "children": entities, "crashes": engine.policy.crashes,
            "quarantined_messages": engine.policy.quarantined, "mailboxes": engine.waiting(),
        }  # fmt: skip
        return {**trunk, "children": [*trunk.get("children", []), entity_tree]}

    # --- stop ----------------------------------------------------------------------------------------

    @property
    def stop_s(self) -> float:
        """What the whole of a stop may take: the drain, then the closing of what is open."""
        return self.kernel.limits("drain_timeout_ms") / 1000 + CLOSE_S

    async def stop(self) -> list[str]:
        """Drain within `drain_timeout_ms`: no new work, running steps finish or stay intended, all is committed.

        Commands are refused with `draining` until the end; only then does nobody answer any more. Returns what did
        not close in time.
        """
        budget_s = self.kernel.limits("drain_timeout_ms") / 1000
        self.kernel.engine.stopping = True
        self.gate.flush(self.kernel.engine)
        self.detector.save()
        await self.kernel.anchor()
        if not await self.kernel.drain(budget_s * 0.6):
            log.warning("%d turns are not committed; they will be decided again", self.kernel.writer.waiting)
        await self.service.stop(budget_s * 0.1)
        return await self.close()

    async def close(self) -> list[str]:
        """Let everything go that was opened, in reverse, however far the start came; returns what did not close."""
        return await self.parts.close(CLOSE_S)

    async def _end_tree(self) -> None:
        assert self._tree_task is not None
        self._tree_task.cancel()
        await asyncio.wait({self._tree_task})

    async def _close_chain(self) -> None:
        if self._tree_task is not None and self._tree_task.done():
            await self.kernel.close_chain()

    # --- hooks ---------------------------------------------------------------------------------------

    def _endpoint(self, node_id: str) -> dict[str, Any] | None:
        node = self.pool.node(node_id)
        return ssh_endpoint(node) if node is not None else None

    async def _until_closed(self) -> None:
        """A runtime whose connection is not sought again hears nothing and keeps the lease: it must end."""
        await self._nats_closed.wait()
        why = self._closed_why or "it did not say why"
        raise Unavailable(f"the NATS server has closed a connection of the runtime for good: {why}")

    def _on_closed(self, why: str) -> None:
        self._closed_why = self._closed_why or why
        self._nats_closed.set()

    async def _on_canary(self, message: Any) -> None:
        self.detector.canary()

    async def _send_canary(self) -> None:
        period = self.kernel.limits("heartbeat_interval_ms") / 1000
        while True:
            if self._canary.is_connected:
                await self._canary.publish(f"amends.v1.canary.{self.instance_id}", b"")
            await asyncio.sleep(period)
