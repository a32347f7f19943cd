"""One rental runtime, put together: the only place where ports meet adapters. Start, serve, drain.

Order: servers, lease (a standby waits here and does nothing else), schema, journal, actors, NATS, what was left over,
services, and last the commands. Only then `endpoints.json` and `ready`.
"""

import logging
import os
import secrets
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from actors.account.mirror import GRACE_US
from actors.node.state import ssh_endpoint
from adapters.http.console.routes import Console
from adapters.http.jaeger import jaeger_routes
from adapters.http.server import HttpServer
from adapters.http.stripe import stripe_routes
from adapters.nats.agents import AgentTasks, Heartbeats
from adapters.nats.answers import Answers
from adapters.nats.providers import ProviderSteps
from adapters.nats.publishing import JetStreamPublisher
from adapters.nats.service import CommandService
from adapters.otel.environment import export_target, resource_of
from adapters.postgres.audit import verify_audit
from adapters.postgres.installation import open_rows
from adapters.postgres.journal import journal_of
from adapters.postgres.lease import Lease
from adapters.postgres.reading import ENTITIES, ReadSide
from adapters.postgres.spans import SpanReader
from adapters.ssh.client import SshClient
from adapters.ssh.keys import canonical_host_key, canonical_public_key
from adapters.ssh.runner import SshRunner
from adapters.stripe.signatures import verify
from amends.delivery.notices import NoticeRunner
from amends.domain.matrix import broken_promises
from amends.ports.steps import StepRunner
from amends.runtime.requests import Endpoint
from amends.runtime.trunk import ChildSpec
from amends.values.errors import BadConfiguration
from amends.values.limits import Limits
from supervisors.api.auth import Gatekeeper, operators
from supervisors.api.backtest import Backtest
from supervisors.api.counts import Counts
from supervisors.api.endpoints import checks, commands, finders
from supervisors.api.ledger import LedgerQuestions
from supervisors.api.ledger_proof import LedgerProof
from supervisors.api.metrics import Metrics
from supervisors.api.objectives import Objectives
from supervisors.api.operators import OperatorQuestions
from supervisors.api.policies import PolicyQuestions
from supervisors.api.questions import Questions
from supervisors.api.readiness import Readiness
from supervisors.api.replies import data_schema
from supervisors.api.sides import Sides
from supervisors.api.traces import Traces
from supervisors.api.webhooks import Webhooks
from supervisors.api.whatif import WhatIf
from supervisors.boot import anchors, client_key
from supervisors.boot.anchors import Anchors
from supervisors.boot.client_key import ClientKey
from supervisors.boot.collector import spare_collector
from supervisors.boot.console import desk
from supervisors.boot.files import operator_token
from supervisors.boot.front import EndpointsFile, Front, Reads
from supervisors.boot.holders import Holders
from supervisors.boot.links import Links
from supervisors.boot.servers import Servers
from supervisors.boot.services import Services
from supervisors.boot.spans import Shown, SpanExport
from supervisors.boot.standby import Waiting
from supervisors.boot.stripe import NoStripe, stripe_link
from supervisors.boot.verifiers import verify_records
from supervisors.bus_admin import BusAdmin, Republishes
from supervisors.closing import CLOSE_S, Parts
from supervisors.core import Core
from supervisors.decisions import Decisions
from supervisors.late_mounts import LateMounts
from supervisors.paths import made_directory
from supervisors.policy_file import load
from supervisors.runbooks import runbook
from supervisors.settings import Settings

log = logging.getLogger("amends.boot")


class Runtime:
    """A running Amends. `start` returns when it is ready to serve; `run` until it is stopped or fenced."""

    def __init__(
        self, settings: Settings, *, say: Callable[[str], None] = lambda line: None, accept_new_ssh_key: bool = False
    ) -> None:
        self.settings, self._say = settings, say
        self._accept_new_ssh_key = accept_new_ssh_key
        self._took_over = False  # whether another runtime held the lease when this one came
        self._state_dir = Path(settings.state_dir).absolute()
        self._instance_id = secrets.token_hex(8)
        self._version = version("amends")
        for key_file in (client_key.key_file, anchors.key_file):
            key_file(settings, self._state_dir)  # one that cannot be read is said before anything is made
        self._servers = Servers(settings, self._state_dir)
        self._policy, self._policy_text = load(settings.policy_file)
        self._otlp = export_target(settings.otlp.endpoint, settings.otlp.headers, os.environ)
        self._resource = resource_of(os.environ)
        self._core = Core(
            self._policy, Limits(settings.limits(), seed=secrets.randbits(32)), policy_text=self._policy_text.decode(),
            has_runbook=lambda name: runbook(name) is not None, domain_label=settings.detector.domain_label,
        )  # fmt: skip
        self._kernel = self._core.kernel
        self._services = Services()
        self.parts = Parts()

    # --- start ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Come up, or wait as a standby; raises `BadConfiguration`, `Unavailable`."""
        kernel = self._kernel
        made_directory(self._state_dir, "state_dir", mode=0o700)
        self._key = ClientKey(self.settings, self._state_dir, accept_new=self._accept_new_ssh_key)
        notary = Anchors(self.settings, self._state_dir)
        log.info("using %s", self._servers.said)
        await self._servers.start(self.parts)
        await self._key.look(self._servers.dsn)
        await self._look_at_runs()
        lease = await self._leased()
        self.parts.opened("journal", kernel.aclose)
        self._journal = journal_of(self._servers.dsn, lease.epoch, kernel.domains, role=lease.role)
        self._role = lease.role  # what its sessions work as
        self._read = ReadSide(self._servers.dsn, role=lease.role)  # the counts' and the republishes' questions
        self.parts.opened("reads", self._read.aclose)
        count = await self._core.load(self._journal, lease, notary)
        await self._key.claim(self._journal, kernel.clock.now_us())
        await self._connect()
        await self._serve()
        spare_collector()
        log.info("epoch %d: %d actors, resumed %s", lease.epoch, count, kernel.recovered)

    async def _leased(self) -> Lease:
        """The lease, at once or after the wait of a standby."""
        holders = Holders(self._state_dir, self._instance_id)
        self.parts.opened("state directory", holders.aclose)
        holders.enter()
        lease = Lease(self._servers.dsn, self._instance_id, holders.is_dead)
        self.parts.opened("lease", lease.aclose)
        if await lease.acquire_now() is None:
            await self._stand_by(lease)
        await self._look_at_runs()  # again: nobody begins another run now
        await lease.prepare(self._instance_id, self._version, time.time_ns() // 1000, self._resource)
        return lease

    async def _look_at_runs(self) -> None:
        """What open runs owe must be owed by this release too (matrix.md); raises `BadConfiguration`, `Unavailable`."""
        matrix = self._kernel.matrix
        faults = broken_promises(matrix, await open_rows(self._servers.dsn, matrix.sha256))
        if faults:
            raise BadConfiguration(
                f"matrix {matrix.version} changes what open recovery runs owe; let the release before end them first:"
                "\n  " + "\n  ".join(faults)
            )

    async def _stand_by(self, lease: Lease) -> None:
        self._took_over = True
        waiting = Waiting(self.settings.http.listen)
        self.parts.opened("standby's HTTP server", waiting.stop)
        await waiting.start()
        self._say("standby: another runtime holds the lease; waiting")
        await lease.acquire()
        await waiting.stop()

    async def _connect(self) -> None:
        """The adapters that act: NATS, agents, SSH."""
        core, kernel, engine = self._core, self._kernel, self._kernel.engine
        epoch, may_act = kernel.lease.epoch, kernel.lease.may_act
        self._links = links = Links(self.settings, self._servers.nats_urls, epoch, self._instance_id)
        await links.open(self.parts)
        publisher = JetStreamPublisher(links.client)
        if self.settings.nats.auto_create_streams == "startup":
            await publisher.create_streams()
        balances = [(row["account_id"], row["balance_minor"]) for row in await self._read.rows("balances")]
        await core.watch(links.up, balances)
        late = LateMounts(engine)
        self._agents = late.steps = AgentTasks(
            links.client, epoch, kernel.clock.now_us, core.pool.node_epoch, may_act, late.came
        )
        self._heartbeats = Heartbeats(core.detector.heard_all)
        await links.open_heartbeats(self.parts, self._heartbeats)
        ssh = SshClient(
            self._key.path, connect_timeout_ms=self.settings.ssh.connect_timeout_ms,
            customer_key_options=self.settings.ssh.customer_key_options,
        )  # fmt: skip
        self.parts.opened("SSH connections", ssh.close)
        self._counts, self._republishes = Counts(self._read), Republishes(self._read.rows)
        self._objectives = Objectives(self._read, kernel.clock.now_us)
        await self._counts.load()
        await self._objectives.load()
        told = Decisions()
        engine.listeners += [self._counts.follow, self._objectives.follow, self._republishes.follow, told.follow]
        self._stripe = stripe = stripe_link(
            self.settings.stripe, kernel.clock.now_us, self.parts,
            lambda customer: self._read.rows("credits_of_customers", [customer]),
        )  # fmt: skip
        runners: dict[str, StepRunner] = {
            "ssh": SshRunner(ssh, self._endpoint, default_user=self.settings.ssh.user),
            "agent": late,
            "bus": NoticeRunner(publisher),
            "bus-admin": BusAdmin(publisher, self._journal, may_act),
            "stripe": stripe.steps if stripe is not None else NoStripe(),
            "provider": ProviderSteps(links.client),
        }
        core.wire(
            runners, publisher, bus_is_there=links.up, peer_clocks={"nats": publisher.clock_us},
            stripe_is_there=stripe.steps.there if stripe is not None else None,
        )  # fmt: skip

    async def _serve(self) -> None:
        """Who may ask what; then the services, and last the commands."""
        core, kernel = self._core, self._kernel
        known, token = operators(self.settings, lambda: operator_token(self._state_dir))
        self._gatekeeper = Gatekeeper(self.settings, known)
        reads = Reads(self._servers.dsn, self._role, self._kernel.domains)
        spans = SpanReader(reads.pages)
        export = SpanExport(self._journal, self._servers.dsn, self._role, self._otlp)
        kernel.engine.listeners.append(export.follow)
        traces = Traces(spans, Shown(), reads.pages, partial(verify_records, reads.pages))
        requests = core.requests(self._gatekeeper)
        webhooks = Webhooks(kernel.engine, self._journal, self._signed, self._gatekeeper.count)
        answers = Answers(
            self.settings.nats.inbox_prefixes,
            lambda subject: self._gatekeeper.count("anonymous", "reply_subject_refused"),
            silent=lambda: not kernel.lease.may_answer(),
        )  # fmt: skip
        sides = Sides(reads.callers, reads.operators)
        questions = Questions(sides, ENTITIES, {self._policy.currency: self._policy.minor_unit_exponent})
        table = self._table(reads, sides, questions, traces)
        self._service = CommandService(
            self._links.client, requests, [*table, *webhooks.endpoints()], self._version, answers,
            lambda each: data_schema(each, columns), queue_group=f"amends.{kernel.lease.epoch}",
        )  # fmt: skip
        metrics = Metrics(
            kernel, core.pool, core.detector, self._counts, requests=requests, service=self._service, answers=answers,
            heartbeats=self._heartbeats, exporter=export, services=self._services,
            webhooks=webhooks, stripe=self._stripe.steps.breaker if self._stripe is not None else None,
            objectives=self._objectives,
        )  # fmt: skip
        ready = Readiness(kernel, core.detector, self._links.up)
        fleet = partial(reads.operators.rows, "fleet")
        console = Console(
            desk(kernel, self._counts, requests, table, self._gatekeeper, ready, metrics, fleet),
            jaeger_url=self.settings.http.jaeger_url,
        )
        http = HttpServer(
            self.settings.http.listen, checks=ready.checks, metrics=metrics.samples,
            authorise=self._gatekeeper.may_look, guarded=[*jaeger_routes(traces), *console.guarded_routes()],
            routes=[*stripe_routes(webhooks.take), *console.routes()], visitor=console.visitor,
        )  # fmt: skip
        file = EndpointsFile(self._servers, self._state_dir, token, self._key.public)
        front = Front(http, reads, file, took_over=self._took_over)
        self.parts.opened("HTTP server and reads", front.stop)
        await front.start()
        columns = await questions.columns()
        await self._agents.start()  # what the steps taken up hear from agents must not pass unheard
        await kernel.resume()
        self.parts.opened("chain", self._close_chain)  # closed right after the tree, when nothing can commit any more
        self.parts.opened("supervision tree", self._services.end)
        await self._services.start([*self._children(), export.child(), front.child()])
        self._key.audit(kernel.engine)
        await self._links.listen(self._heartbeats, core.detector)
        core.pool.loaded()
        await self._service.start()
        webhooks.open()
        await front.tell()

    def _table(self, reads: Reads, sides: Sides, questions: Questions, traces: Traces) -> list[Endpoint]:
        """Every subject that is served."""
        dsn = self._servers.dsn
        mirrored = self._stripe.mirrored if self._stripe is not None else None
        slow, policy_of = Sides(reads.pages, reads.pages), self._core.pool.policy_of
        now_us = self._kernel.clock.now_us
        exponents = {self._policy.currency: self._policy.minor_unit_exponent}
        asked = OperatorQuestions(sides, self._kernel, self._services, lambda: verify_audit(dsn))
        sent = commands(
            self._kernel.domains,
            checks(lambda text: canonical_public_key(text)[0], lambda text: canonical_host_key(text)[0],
                   self.settings.prices),
            finders(self._journal, self._given_up), {"republish": self._republishes.outcome},
        )  # fmt: skip
        return [
            *sent, *asked.endpoints(), *PolicyQuestions(sides, self._policy).endpoints(),
            *LedgerQuestions(sides, exponents).endpoints(), *LedgerProof(slow, policy_of, now_us, mirrored).endpoints(),
            *Backtest(slow, policy_of).endpoints(), *WhatIf(self._kernel, self._core.pool, sent).endpoints(),
            *traces.endpoints(), *questions.endpoints(),
        ]  # fmt: skip

    def _children(self) -> list[ChildSpec]:
        """The services, in start order, before those of the front."""
        engine, period_s = self._kernel.engine, self._kernel.limits("heartbeat_interval_ms") / 1000
        return [
            *self._servers.children(),
            *self._kernel.children(),
            self._links.child(),
            ChildSpec(name="canary", run=partial(self._links.send_canary, period_s)),
            *self._core.children(),
            ChildSpec(name="violations", run=self._counts.watch_violations),
            ChildSpec(name="refusals", run=partial(self._gatekeeper.audit, engine)),
        ]

    async def _given_up(self, account_id: str) -> list[dict[str, Any]]:
        """Credits of an account that never came to Stripe, nor are only on their way to who sends them."""
        return await self._read.rows("given_up", account_id, self._kernel.clock.now_us() - GRACE_US)

    def _signed(self, body: bytes, signature: str) -> None:
        """Raise ValueError for what is not signed with one of the configured secrets, of late, by the wall clock."""
        verify(body, signature, self.settings.stripe.webhook_secrets, time.time())

    def _endpoint(self, node_id: str) -> dict[str, Any] | None:
        node = self._core.pool.node(node_id)
        return ssh_endpoint(node) if node is not None else None

    # --- while it runs, and stop ---------------------------------------------------------------------

    async def run(self) -> None:
        """Until the tree ends: cancelled, fenced, or out of budget."""
        await self._services.run()

    @property
    def stop_s(self) -> float:
        """What the whole of a stop may take: the drain, then the closing of what is open."""
        return self._kernel.limits("drain_timeout_ms") / 1000 + CLOSE_S

    async def stop(self) -> list[str]:
        """Drain within `drain_timeout_ms`: no new work, running steps finish or stay intended, all is committed.

        Commands are refused with `draining` until the end; only then does nobody answer any more. Returns what did
        not close in time.
        """
        kernel = self._kernel
        budget_s = kernel.limits("drain_timeout_ms") / 1000
        kernel.engine.stopping = True
        self._gatekeeper.flush(kernel.engine)
        self._core.detector.checkpoint.save()
        await kernel.anchor()
        if not await kernel.drain(budget_s * 0.6):
            log.warning("%d turns are not committed; they will be decided again", kernel.writer.waiting)
        await self._service.stop(budget_s * 0.1)
        return await self.close()

    async def close(self) -> list[str]:
        """Let everything go that was opened, in reverse, however far the start came; returns what did not close."""
        return await self.parts.close(CLOSE_S)

    async def _close_chain(self) -> None:
        if self._services.ended:
            await self._kernel.close_chain()
