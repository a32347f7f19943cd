"""The rental runtime on ports: kernel, fleet indexes, detector, commands. Real and simulated worlds share it.

Order: `load` under a lease, `watch` the fleet, `wire` the adapters, `resume` what was left, run the `children`, last
`serve`: only then does anything new come in.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from actors.account.state import Account
from actors.detector.kind import DetectorState
from actors.detector.messages import FLEET, DetectorStarts
from actors.facts import Facts
from actors.money.policy import Policy
from actors.node.messages import Restored
from actors.node.state import Node
from actors.node.world import LOOKED_AT
from amends.domain.kinds import ActorState
from amends.kernel import Kernel, OpenJournal
from amends.ports.bus import BatchPublisher
from amends.ports.clock import NO_PEERS, REAL, PeerClock, Sources
from amends.ports.lease import HeldLease
from amends.ports.notary import Notary
from amends.ports.steps import StepRunner
from amends.runtime.requests import Limits as CallerLimits
from amends.runtime.requests import Requests
from amends.runtime.trunk import ChildSpec
from amends.turn.decision import Decision
from amends.turn.messages import Envelope
from amends.values.limits import Limits
from supervisors.api.admission import Admission
from supervisors.detector import Detector
from supervisors.epochs import HigherEpochs
from supervisors.guards import Guards
from supervisors.indexing import all_of
from supervisors.last_seen import LastSeen
from supervisors.loading import Restore, last_restore, load_ended, load_policies, load_pool, load_seen
from supervisors.pool import IN_REACH, Pool, node_of
from supervisors.rental import RENTAL
from supervisors.reprobe import Reprobes
from supervisors.world_looks import WorldLooks

LOSABLE = ("ready", "draining", "suspect", "quarantined")
AWAY_STATES = ("suspect", "offline", "quarantined")


class Core:
    """See above. Raises `BadDomain` if the tables do not hold together."""

    def __init__(
        self, policy: Policy, limits: Limits, *, policy_text: str, domain_label: str = "", sources: Sources = REAL,
        has_runbook: Callable[[str], bool] = lambda name: True,
    ) -> None:  # fmt: skip
        self._last_seen, self._guards = LastSeen(), Guards(limits)
        self.pool = Pool(policy, self._last_seen, self._guards)
        self._policy_text = policy_text
        answers: Facts = self.pool  # all that decisions may ask
        self.kernel = Kernel(
            (RENTAL,), limits, facts=answers, policy_sha256=policy.sha256, has_runbook=has_runbook, sources=sources,
            address_of=self.pool.address_of,
        )  # fmt: skip
        self._domain_label = domain_label
        self._restore: Restore | None = None

    async def load(self, journal: OpenJournal, lease: HeldLease, notary: Notary | None = None) -> int:
        """Take over the journal, and have all that lives or owes in memory; returns how many actors."""
        kernel = self.kernel
        await kernel.open(journal, lease, notary)
        self.pool.attach(kernel.engine)
        document = msgspec.json.encode({"toml": self._policy_text}).decode()
        await kernel.store_document("policy", self.pool.policy.sha256, document)
        count = await kernel.load()
        await load_policies(self.pool, journal)
        await load_pool(self.pool, journal)
        self._restore = await last_restore(journal)
        return count

    async def watch(self, linked: Callable[[], bool], balances: Iterable[tuple[str, int]] = ()) -> None:
        """Have the detector know the fleet, and accounts what they have (`balances`, in minor units).

        `linked`: whether heartbeats could reach us now.
        """
        engine = self.kernel.engine
        clock = self.kernel.sources.monotonic_us
        self.detector = Detector(
            engine, self._last_seen, self._guards, monotonic=lambda: clock() / 1e6, linked=linked,
            domain_of=self._domain,
        )  # fmt: skip
        self.epochs = HigherEpochs(engine, self.kernel.journal, self.kernel.lease, self.kernel.sources.entropy)
        engine.listeners += [self.detector.follow, self._wake_held, self.epochs.follow]
        seen, beats = await load_seen(self.kernel.journal, engine.store), dict[str, int]()
        async for node_id, node in all_of(engine, "node"):
            if isinstance(node, Node):
                last_us = max(node.last_heartbeat_us or 0, seen.get(node_id, 0))
                if node.state in LOSABLE and last_us:
                    beats[node_id] = last_us
                self.detector.on_node(node_id, msgspec.structs.replace(node, last_heartbeat_us=last_us or None))
        await load_ended(self.pool, self.kernel.journal, beats)
        self.reprobes = Reprobes(engine, self.pool)
        self.looks = WorldLooks(engine, self._is_looked_at)
        await self.pool.payers.load()
        await self.pool.attachments.load()
        await self.pool.writing.load()
        self.pool.balances.load(balances)
        if self._restore is not None:
            self._tell_restored(self._restore)
        await self.pool.load()
        detector = engine.store.get("detector", FLEET)
        if isinstance(detector, DetectorState):
            self._guards.restore(detector.holds)
        else:
            engine.tell("detector", FLEET, Envelope(DetectorStarts(), priority=True))

    def _tell_restored(self, mark: Restore) -> None:
        """Whoever does not know of the database's last restore; until its turn has committed nobody is sent there."""
        self.pool.restored = mark.number
        for node_id, node in self.kernel.engine.store.items("node"):
            if isinstance(node, Node) and node.restored < mark.number:
                env = Envelope(Restored(mark.number, mark.reason), priority=True)
                self.kernel.engine.tell("node", node_id, env)

    def wire(
        self, runners: Mapping[str, StepRunner], publisher: BatchPublisher, *, bus_is_there: Callable[[], bool],
        peer_clocks: Mapping[str, PeerClock] = NO_PEERS, stripe_is_there: Callable[[], bool] | None = None,
    ) -> None:  # fmt: skip
        """Join it to the adapters of its world; without a word of Stripe nothing is mirrored there."""
        self.pool.mirrors = stripe_is_there is not None
        conditions = {
            "bus": lambda target: bus_is_there(), "node_in_reach": self.pool.in_reach,
            "stripe": lambda target: stripe_is_there is not None and stripe_is_there(),
        }  # fmt: skip
        self.kernel.wire(runners, publisher, conditions, self._domain_of, peer_clocks)

    def children(self) -> Sequence[ChildSpec]:
        """The services of the fleet, after the kernel's own."""
        return [
            ChildSpec(name="detector", run=self.detector.run, detail=lambda: {
                "watched": self.detector.watched, "blind": self.detector.blind}),
            ChildSpec(name="reprobes", run=self.reprobes.run, detail=lambda: {"asked": self.reprobes.asked}),
            ChildSpec(name="world-looks", run=self.looks.run, detail=lambda: {"asked": self.looks.asked}),
            ChildSpec(name="last-seen", run=self.detector.checkpoint.run),
            ChildSpec(name="epochs", run=self.epochs.run),
            ChildSpec(name="windows", run=self.pool.meters.run, detail=lambda: {"meters": len(self.pool.meters)}),
        ]  # fmt: skip

    def requests(self, authenticate: Callable[..., Any], limits: CallerLimits | None = None) -> Requests:
        """Who handles commands and questions."""
        clock = self.kernel.sources.monotonic_us
        admission = limits or Admission(self.pool.open_requests, lambda: clock() / 1e6)
        return Requests(self.kernel.engine, authenticate, self.kernel.kept_reply, admission)

    def _domain_of(self, target: str) -> str:
        """The failure domain of a step's target, "" where none is known."""
        kind, _, name = target.partition(":")
        if kind == "provider":
            return name.partition("/")[0]
        node = self.pool.node(node_of(target)) if kind == "node" else None
        return self._domain(node) if node is not None else ""

    def _domain(self, node: Node) -> str:
        return node.labels.get(self._domain_label, "")

    def _is_looked_at(self, kind: str, name: str, state: ActorState) -> bool:
        """Whether there is a world to compare it with: a node in service, any namespace, the payer of a customer."""
        if isinstance(state, Account):
            return self.pool.mirrors and self.pool.payers.is_first(name, state.stripe_customer_id)
        return kind == "namespace" or state.state in LOOKED_AT

    def _wake_held(self, decision: Decision) -> None:
        """A turn has committed: a node that is back has its held steps done; an operator's word is no return (R04)."""
        node, before = decision.state, decision.before
        if not isinstance(node, Node) or before is None or before.state == node.state:
            return
        if before.state in AWAY_STATES and node.state in IN_REACH:
            self.kernel.dispatcher.wake(f"node:{decision.id}")
