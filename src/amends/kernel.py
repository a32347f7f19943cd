"""The kernel: engine, writer, steps and relay for any list of domains, on ports. It knows no driver and no renting."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from amends.delivery.parked import ParkedNotifications
from amends.delivery.relay import Relay
from amends.delivery.streams import Anchor, ClockStepped, RelayStarts
from amends.domain.checks import check_domains, join
from amends.domain.domain import Domain, rows_of
from amends.ports.bus import BatchPublisher
from amends.ports.clock import NO_PEERS, REAL, PeerClock, Sources
from amends.ports.journal import Journal, KeptReply
from amends.ports.lease import HeldLease
from amends.ports.notary import Notary
from amends.ports.steps import StepRunner
from amends.runtime.clock import STEP_ALARM_US, Clock, ahead_of
from amends.runtime.dispatcher import NO_CONDITIONS, Condition, Dispatcher
from amends.runtime.engine import Engine
from amends.runtime.kept import KeptReplies
from amends.runtime.loading import NOTHING_LEFT, load_actors, read_left, resume
from amends.runtime.trunk import ChildSpec
from amends.runtime.writer import JournalWriter
from amends.turn.context import AddressOf, Context, no_address
from amends.turn.decision import EVENTS
from amends.turn.messages import Envelope
from amends.values.anchors import Anchored, Mark
from amends.values.errors import Fenced, Unavailable
from amends.values.limits import Limits

READ_RETRY_S = 0.2
READ_PATIENCE_S = 3.0  # how long a request waits for a database that is away before it is told so
ANCHOR_S = 180.0
CLOCK_S = 5.0
COMPARE_S = 60.0
FORGET_ROUNDS = 10_000
KEEP_REPLIES_US = 7 * 86_400_000_000

T = TypeVar("T")


class OpenJournal(Journal, Protocol):
    """A journal that is given up at the end."""

    async def aclose(self) -> None:
        """Close what is open."""
        ...


class Kernel:
    """The runtime under a lease. Raises `BadDomain` if the domains do not hold together."""

    def __init__(
        self, domains: Sequence[Domain], limits: Limits, *, facts: Any = None, policy_sha256: str = "",
        has_runbook: Callable[[str], bool] = lambda name: True, sources: Sources = REAL,
        address_of: AddressOf = no_address,
    ) -> None:  # fmt: skip
        check_domains(domains, has_runbook)
        self.sources = sources
        self.domains, self.limits, self.facts = domains, limits, facts
        self.matrix = join(domains)
        self._policy_sha256, self._address_of = policy_sha256, address_of
        self._reads: set[asyncio.Task[None]] = set()
        self._journal: Journal | None = None
        self._left = NOTHING_LEFT
        self._drained = False
        self._peer_clocks: Mapping[str, PeerClock] = NO_PEERS
        self._ahead_of: dict[str, int] = {}  # how far the wall clock was ahead of them
        self._notary: Notary | None = None
        self.recovered: dict[str, int] = {}
        self.loaded = 0

    @property
    def journal(self) -> Journal:
        """The journal, once it is open."""
        assert self._journal is not None
        return self._journal

    async def open(self, journal: OpenJournal, lease: HeldLease, notary: Notary | None = None) -> None:
        """Take over the journal under the lease's epoch; both are given up by `aclose`. `notary` signs its heads."""
        self._notary = notary
        kinds = {kind.name: kind for domain in self.domains for kind in domain.kinds}
        self.lease, self._journal, self._give_up = lease, journal, (journal.aclose, lease.aclose)
        self._kept = KeptReplies(journal.kept)
        head = await journal.head()
        self.clock = Clock(self.sources.wall_us, self.sources.monotonic_us, await journal.newest_us())
        await self._compare_clocks()
        self.context = Context(
            self.domains, epoch=lease.epoch, limits=self.limits, facts=self.facts, policy_sha256=self._policy_sha256,
            address_of=self._address_of,
        )  # fmt: skip
        self.engine = Engine(kinds, self.context, self.clock.now_us, self._read_actor, self.sources)
        types = rows_of(self.domains)
        self.writer = JournalWriter(journal, head, types, self.engine.holds, self.clock.now_us)
        self.engine.attach(self.writer)
        await self.store_document("matrix", self.matrix.sha256, self.matrix.body().decode())

    async def store_document(self, kind: str, sha256: str, body: str) -> None:
        """Keep a matrix or policy whole under its hash."""
        await self.journal.store_document(kind, sha256, body, self.clock.now_us())

    async def load(self) -> int:
        """All actors that live or owe, and what is left to be done; returns how many actors."""
        self.loaded = await load_actors(self.engine, self.domains, self.journal)
        self._left = await read_left(self.journal)
        return self.loaded

    def wire(
        self,
        runners: Mapping[str, StepRunner],
        publisher: BatchPublisher,
        conditions: Mapping[str, Condition] = NO_CONDITIONS,
        domain_of: Callable[[str], str] = lambda target: "",
        peer_clocks: Mapping[str, PeerClock] = NO_PEERS,
    ) -> None:
        """Join the engine to the adapters of this process; `BadDomain` where a step needs a condition nobody tells.

        `peer_clocks`: those that tell the time beside Postgres', by name.
        """
        self._peer_clocks = peer_clocks
        may_act = self.lease.may_act
        self.relay = Relay(self.engine, publisher, EVENTS, self.clock.now_us, journal=self.journal, may_act=may_act)
        self.parked = ParkedNotifications(self.engine)
        self.dispatcher = Dispatcher(
            self.engine, self.context.steps, runners, may_act=may_act, conditions=conditions, domain_of=domain_of
        )
        self.engine.listeners += [self.dispatcher.follow, self.relay.follow, self.parked.follow]

    def children(self) -> list[ChildSpec]:
        """The kernel's services, in start order."""
        return [
            ChildSpec(name="lease", run=self.lease.run, fatal=True, detail=lambda: {
                "age_ms": int(self.lease.age_s * 1000)}),
            ChildSpec(name="journal", run=self._write, fatal=True, finish=self._written, shutdown_ms=1000,
                      detail=lambda: {
                "waiting": self.writer.waiting, "commits": self.writer.commits, "turns": self.writer.turns,
                **self.writer.breaker.detail()}),
            ChildSpec(name="timers", run=self.engine.timers.run, detail=lambda: {"armed": len(self.engine.timers)}),
            ChildSpec(name="steps", run=self.dispatcher.run, detail=lambda: {
                "running": self.dispatcher.running, "waiting": self.dispatcher.waiting,
                "targets_held": len(self.dispatcher.reach)}),
            ChildSpec(name="relay", run=self.relay.run, detail=lambda: {
                "pending": self.relay.pending, **self.relay.breaker.detail()}),
            ChildSpec(name="parked", run=self.parked.run, detail=lambda: {"parked": len(self.parked)}),
            ChildSpec(name="janitor", run=self._tidy),
            ChildSpec(name="anchor", run=self._anchor, detail=lambda: self._notary.detail() if self._notary else {}),
            ChildSpec(name="clock", run=self._watch_clock),
        ]  # fmt: skip

    async def _write(self) -> None:
        """Commit; who finds itself replaced begins nothing from that moment on."""
        try:
            await self.writer.run()
        except Fenced:
            self.lease.fence()
            raise

    async def _written(self) -> None:
        """What the services that end before the journal have left to commit, such as events just acknowledged."""
        if self._drained:
            await self.writer.drained()

    async def resume(self) -> None:
        """Take up what a crash or a drain left: once wired, and before the services start.

        So it is taken up once, and an entity's older events stand before those of its next turns.
        """
        await self.anchor("opening")
        self.engine.tell("stream", EVENTS, Envelope(RelayStarts(), priority=True))
        for notification_id, notification in self.engine.store.items("notification"):
            if notification.state == "parked":
                self.parked.accept(notification_id)
        self.recovered = await resume(self.engine, self.dispatcher, self._left)
        self._left = NOTHING_LEFT

    async def drain(self, budget_s: float) -> bool:
        """Running steps finish or stay intended; what is decided is committed. False if time ran out."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + budget_s
        self.engine.stopping = True
        await self.dispatcher.drain(budget_s * 0.6)
        try:
            async with asyncio.timeout(max(0.1, deadline - clock())):
                await self.writer.drained()
        except TimeoutError:
            return False
        self._drained = True
        return True

    async def close_chain(self) -> None:
        """Once no service runs any more: anchor the heads as the last ones, if it is sure that nothing follows them.

        It is not after a crash, a failed drain, a commit in doubt, or with a lease that another could have.
        """
        if self._drained and self.writer.at_rest and self.lease.may_act():
            await self.anchor("closing")

    async def aclose(self) -> None:
        """Give journal and lease up."""
        for task in self._reads:
            task.cancel()
        if self._journal is not None:
            await self._kept.aclose()
            for give_up in self._give_up:
                await give_up()

    # --- reading -------------------------------------------------------------------------------------

    async def kept_reply(self, caller: str, key: str) -> KeptReply | None:
        """What was answered to this key before."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + READ_PATIENCE_S
        while True:
            try:
                return await self._kept.find(caller, key)
            except Unavailable:
                if clock() > deadline:
                    raise
                await asyncio.sleep(READ_RETRY_S)

    def _read_actor(self, kind: str, identifier: str, then: Callable[[bytes | None], None]) -> None:
        async def read() -> None:
            found = await _patiently(lambda: self.journal.read_actor(kind, identifier))
            then(found.body if found is not None else None)

        self._background(read(), "read-actor")

    def _background(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(3600)
            week_ago_us = self.clock.now_us() - KEEP_REPLIES_US
            await self.forget(week_ago_us)
            await self.journal.tidy(week_ago_us)

    async def forget(self, before_us: int) -> None:
        """Let go of what was answered before that instant; a few rows at a time, between other reads."""
        for _ in range(FORGET_ROUNDS):
            if not await self.journal.forget(before_us):
                break

    async def _watch_clock(self) -> None:
        """Say when the wall clock has stepped, and when the slewed one has caught up (credit-policy.md, Clock)."""
        clock = asyncio.get_running_loop().time
        said: dict[str, str] = {}
        compared = clock()
        await self._compare_peers()
        while True:
            self._say_clocks(said)
            await asyncio.sleep(CLOCK_S)
            self.clock.now_us()
            if clock() - compared >= COMPARE_S or self.clock.offset_us > STEP_ALARM_US:
                compared = clock()
                await self._compare_peers()
                try:
                    await self._compare_clocks()
                except Unavailable:  # said where it is felt
                    continue
                self.engine.timers.look()

    def _say_clocks(self, said: dict[str, str]) -> None:
        """Tell each clock that went astray or came back; `said`: which ones are, with the name they were told by."""
        clock = self.clock
        off = abs(clock.peer_offset_us) > STEP_ALARM_US
        own = ("postgres", clock.peer_offset_us) if off else ("wall", clock.offset_us)
        for key, (peer, offset_us) in {"own": own, **{name: (name, us) for name, us in self._ahead_of.items()}}.items():
            if (stepped := abs(offset_us) > STEP_ALARM_US) == (key in said):
                continue
            if stepped:
                said[key] = peer
            message = ClockStepped(offset_us, over=not stepped, peer=peer if stepped else said.pop(key))
            self.engine.tell("stream", EVENTS, Envelope(message, priority=True))

    async def _compare_peers(self) -> None:
        """How far the wall clock is ahead of each peer's; one that does not tell now leaves what was known."""
        for name, ask in self._peer_clocks.items():
            before_us = self.sources.wall_us()
            peer_us = await ask()
            if peer_us is not None:
                self._ahead_of[name] = ahead_of(peer_us, before_us, self.sources.wall_us())

    async def _compare_clocks(self) -> None:
        """Have the clock know how far it is from Postgres'."""
        before_us = self.sources.wall_us()
        peer_us = await self.journal.server_us()
        self.clock.compare(peer_us, before_us, self.sources.wall_us())

    async def _anchor(self) -> None:
        while True:
            await asyncio.sleep(ANCHOR_S)
            await self.anchor()

    async def anchor(self, mark: Mark = "") -> None:
        """Sign the heads as committed, keep them outside the database, and have those without a mark published."""
        head = self.writer.head
        heads = Anchored(
            at_us=self.clock.now_us(), epoch=head.epoch, seq=head.seq, digest=head.digest, audit_seq=head.audit_seq,
            audit_hash=head.hash, key="", mark=mark,
        )  # fmt: skip
        if self._notary is not None:
            heads = self._notary.sign(heads)
            await self._notary.keep(heads)
        if not mark:
            self.engine.tell("stream", EVENTS, Envelope(Anchor(heads), priority=True))


async def _patiently(read: Callable[[], Awaitable[T]]) -> T:
    """Read it, however long the database is away."""
    while True:
        try:
            return await read()
        except Unavailable:
            await asyncio.sleep(READ_RETRY_S)
