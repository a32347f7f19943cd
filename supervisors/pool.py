"""The pool: which node is assignable, who waits for one, and the facts about others that decisions may read.

An index over committed turns, never a truth of its own: it is rebuilt from the database at start. A node is
assignable if and only if it is `ready`, without assignment and without debt.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeGuard

from msgspec import Struct

from actors.account.state import Account
from actors.allocation.r04_cleanup import LOCKOUT
from actors.allocation.state import Allocation, user_of
from actors.attachment.state import Attachment
from actors.between import Offer, SetupFailed, Suspicion
from actors.money.policy import Policy
from actors.namespace.state import Namespace
from actors.node.state import Node
from actors.tables import AssignmentRow, DebtRow
from amends.runtime.engine import Engine
from amends.turn.decision import Decision
from amends.turn.messages import Envelope, StepDone
from supervisors.attachments import Attachments, Known
from supervisors.balances import Balances
from supervisors.free_nodes import FreeNodes, WaitingRequests, Wanted
from supervisors.guards import Guards
from supervisors.indexing import all_of
from supervisors.last_seen import LastSeen
from supervisors.meters import Meters
from supervisors.payers import Payers
from supervisors.touched import Touched
from supervisors.writing_nodes import WritingNodes

OFFER_AGAIN_S = 0.05
IN_REACH = ("registered", "ready", "draining", "quarantined")
ACCUSING = (Suspicion, SetupFailed)  # until the node has taken these in, nobody else is sent there


class NodePart(Struct):
    """What an index knows of one node, as it keeps it; attachments are also those of the same namespaces."""

    assignment: tuple[str, str] | None
    ended: dict[str, int]
    debts: dict[str, str]
    attachments: dict[str, Known]
    mount_debts: dict[str, str]
    writing: dict[str, list[str]]  # namespace → nodes


class Pool:
    """Facts for decisions (`Decision.facts`) and the matching of waiting allocations with free nodes."""

    def __init__(self, policy: Policy, last_seen: LastSeen, guards: Guards) -> None:
        self.policy, self._last_seen, self._guards = policy, last_seen, guards
        self.policies = {policy.sha256: policy}  # by hash: an open meter keeps the one that it was opened under
        self.meters = Meters(self.policy_of)
        self.mirrors = False  # whether credits are mirrored to Stripe
        self.payers, self.balances, self.attachments = Payers(), Balances(), Attachments()
        self.writing, self.touched = WritingNodes(), Touched()
        self._engine: Engine | None = None
        self._assignments: dict[str, tuple[str, str]] = {}  # node → (allocation, reserved | active)
        self.restored = 0  # the number of the last restore: no node that was not told of it is assigned
        self._ended: dict[str, dict[str, int]] = {}  # node → allocations that have ended there of late, and when
        self._debts: dict[str, dict[str, str]] = {}  # node → {debt: allocation}
        self._waiting: WaitingRequests[Allocation] = WaitingRequests()
        self._free: FreeNodes[Node] = FreeNodes()
        self._requested: Counter[str] = Counter()  # account → its allocations in `requested`
        self._loading = False  # until all runs nobody is offered a node
        self._offers: dict[str, Offer] = {}  # by allocation; the node is not free meanwhile
        self._offered: set[str] = set()
        self._accused: dict[str, set[str]] = {}  # node → messages it has yet to take in, which may end its service
        self._by_key: dict[str, str] = {}  # SSH host key → node
        self._worked: list[tuple[str, int]] = []  # the last two nodes on which a step over SSH went well, and when
        self.not_locked_out: set[str] = set()  # released allocations whose customer may still get in
        self.lockouts_failed = 0

    def attach(self, engine: Engine) -> None:
        """Follow this engine's committed turns."""
        self._engine = engine
        engine.listeners.append(self.follow)
        self.meters.attach(engine)
        self.payers.attach(engine)
        self.balances.attach(engine)
        self.attachments.attach(engine)
        self.writing.attach(engine)
        self.touched.attach(engine)
        engine.gone.append(self._dropped)

    # --- facts ---------------------------------------------------------------------------------------

    def policy_of(self, sha256: str) -> Policy:
        """The policy that a meter was opened under; KeyError where it is not stored."""
        return self.policies[sha256]

    def posted_us(self, meter_id: str) -> int | None:
        """Through which instant a running meter is posted."""
        return self.meters.posted_us(meter_id)

    def account(self, account_id: str) -> Account | None:
        """The committed account."""
        account = self._get("account", account_id)
        return account if isinstance(account, Account) else None

    def payer(self, account_id: str, customer: str) -> tuple[str, str] | None:
        """(account, currency) of who pays: the account that is named, else the only one with that Stripe customer."""
        return self.payers.payer(account_id, customer)

    def balance_minor(self, account_id: str) -> int:
        """What the account has, by all entries that have committed."""
        return self.balances.minor(account_id)

    def allocation(self, allocation_id: str) -> Allocation | None:
        """The committed allocation, if it is in memory."""
        allocation = self._get("allocation", allocation_id)
        return allocation if isinstance(allocation, Allocation) else None

    def namespace(self, namespace_id: str) -> Namespace | None:
        """The committed namespace."""
        namespace = self._get("namespace", namespace_id)
        return namespace if isinstance(namespace, Namespace) else None

    def attachments_of(self, allocation_id: str) -> list[str]:
        """The attachments of a rental that are neither ended nor given up."""
        return self.attachments.of_allocation(allocation_id)

    def attachments_of_namespace(self, namespace_id: str) -> list[str]:
        """All attachments of a namespace that have not ended."""
        return self.attachments.of_namespace(namespace_id)

    def attachments_on(self, node_id: str) -> list[str]:
        """All attachments of a node that have not ended."""
        return self.attachments.on(node_id)

    def writers_of(self, namespace_id: str) -> list[str]:
        """Those of a namespace that may write."""
        return self.attachments.writers_of(namespace_id)

    def writing_nodes(self, namespace_id: str) -> list[str]:
        """Those for which a read-write grant of the namespace stands."""
        return self.writing.of(namespace_id)

    def grants_of(self, namespace_id: str) -> list[tuple[str, str, str]]:
        """(grant, node, state) of all grants of a namespace that have not ended."""
        return self.writing.grants_of(namespace_id)

    def touched_us(self, ref: str) -> int:
        """When something was begun or ended on a node or with a namespace last, or this runtime began."""
        return self.touched.last_us(ref)

    def mounts_on(self, node_id: str) -> list[tuple[str, str, str]]:
        """(attachment, path, state) of all that are on the node, or will be."""
        return self.attachments.mounts_on(node_id)

    def mounting_on(self, node_id: str) -> list[str]:
        """The attachments that are being mounted on the node."""
        return self.attachments.mounting_on(node_id)

    def attachment(self, attachment_id: str) -> Attachment | None:
        """The committed attachment, if it is in memory."""
        found = self._get("attachment", attachment_id)
        return found if isinstance(found, Attachment) else None

    def owed_mounts(self, node_id: str) -> list[str]:
        """The attachments whose unmount the node owes."""
        return self.attachments.owed(node_id)

    def expected_mounts(self, node_id: str) -> list[str]:
        """The attachments whose mount may stay on the node."""
        return self.attachments.expected_mounts(node_id)

    def node(self, node_id: str) -> Node | None:
        """The committed node, if it lives."""
        node = self._get("node", node_id)
        return node if isinstance(node, Node) and node.state != "retired" else None

    def node_with_key(self, host_key: str) -> str | None:
        """The living node that shows this SSH host key."""
        return self._by_key.get(host_key)

    def node_epoch(self, node_id: str) -> int | None:
        """The committed node's epoch, if it lives."""
        node = self.node(node_id)
        return node.epoch if node is not None else None

    def is_heard(self, node_id: str) -> bool:
        """Whether the node is heard and not silent."""
        return self._last_seen.is_heard(node_id)

    def heard_boot(self, node_id: str) -> str:
        """The boot id of the node's last heartbeat, "" if it was not heard since the start."""
        return self._last_seen.heard_boot(node_id)

    def last_seen_us(self, node_id: str) -> int:
        """When the node was last heard; 0 if never."""
        return self._last_seen.last_seen_us(node_id)

    def concerned_by_loss(self, node_id: str, beat_us: int) -> list[str]:
        """The allocations of a node that its loss concerns: the one it has, and those that ended after that instant."""
        held = self._assignments.get(node_id)
        ended = [each for each, ended_us in self._ended.get(node_id, {}).items() if ended_us > beat_us]
        return sorted({*ended, held[0]} if held is not None else ended)

    def held_nodes(self, domain: str | None, node_ids: Sequence[str] | None) -> list[str]:
        """The silent nodes on which the guards let no verdict pass, of a domain and of these."""
        return self._guards.held_nodes(domain, node_ids)

    def ssh_works_elsewhere(self, node_id: str, since_us: int) -> bool:
        """Whether a step has gone well on another node since then, so that the trouble is not our own (A7).

        Of a few nodes nothing can be told, as with the guards against mass error: there each stands for itself.
        """
        assert self._engine is not None
        if len(self._by_key) < self._engine.context.limits("mass_offline_min_nodes"):
            return True
        return any(node != node_id and at_us >= since_us for node, at_us in self._worked)

    def free_nodes(self) -> list[str]:
        """The nodes that could be assigned now."""
        return self._free.names()

    def is_free(self, node_id: str) -> bool:
        """Whether it could be assigned now."""
        return node_id in self._free

    def address_of(self, target: str) -> tuple[str, int]:
        """Where a step's target has its SSH server now; ("", 0) for what is no living node."""
        kind, _, node_id = target.partition(":")
        node = self.node(node_id) if kind == "node" else None
        return (node.ssh_host, node.ssh_port) if node is not None else ("", 0)

    def in_reach(self, target: str) -> bool:
        """Whether the node of a step's target can be worked on; one that is gone is nobody's to wait for."""
        node = self.node(node_of(target))
        return node is None or node.state in IN_REACH

    def assignment_of(self, node_id: str) -> tuple[str, str] | None:
        """(allocation, `reserved` or `active`) of the node."""
        return self._assignments.get(node_id)

    @property
    def debts(self) -> int:
        """How much all nodes owe."""
        return sum(map(len, self._debts.values())) + self.attachments.debts

    def is_dirty(self, node_id: str) -> bool:
        """Whether the node owes a cleanup or a mount."""
        return bool(self._debts.get(node_id)) or self.attachments.is_owed(node_id)

    def debtors(self, node_id: str) -> list[str]:
        """The allocations whose cleanup the node owes."""
        return sorted(set(self._debts.get(node_id, {}).values()))

    def expected_users(self, node_id: str) -> list[str]:
        """The users that may be on the node: of its allocation, and of cleanups still owed."""
        held = self._assignments.get(node_id)
        owners = {held[0]} if held else set()
        return sorted(user_of(allocation) for allocation in owners | set(self.debtors(node_id)))

    def open_requests(self, account_id: str) -> int:
        """How many rentals of the account wait for a node."""
        return self._requested[account_id]

    # --- following -----------------------------------------------------------------------------------

    def load_assignment(self, allocation_id: str, node_id: str, state: str) -> None:
        """Take in a stored assignment."""
        self._assignments[node_id] = (allocation_id, state)

    def load_ended(self, allocation_id: str, node_id: str, ended_us: int) -> None:
        """Take in an assignment that has ended; it is kept until its node is heard of after that."""
        heard_us = self._last_seen.last_seen_us(node_id)
        kept = {each: at_us for each, at_us in self._ended.get(node_id, {}).items() if at_us > heard_us}
        self._ended[node_id] = {**kept, allocation_id: ended_us}

    def load_debt(self, debt_id: str, node_id: str, allocation_id: str) -> None:
        """Take in a stored debt."""
        self._debts.setdefault(node_id, {})[debt_id] = allocation_id

    def part(self, node_id: str, others: int) -> NodePart:
        """What is known of this node beside its state, for another index (`load_part`).

        Of the attachments of a namespace at most so many `others`, those that may write before all.
        """
        attachments = self.attachments.around(node_id, others)
        namespaces = {known.namespace_id for known in attachments.values()}
        return NodePart(
            self._assignments.get(node_id), dict(self._ended.get(node_id, {})), dict(self._debts.get(node_id, {})),
            attachments, self.attachments.debts_of(node_id),
            {namespace_id: self.writing_nodes(namespace_id) for namespace_id in namespaces},
        )  # fmt: skip

    def load_part(self, node_id: str, part: NodePart) -> None:
        """Take in what another index knows of a node."""
        if part.assignment is not None:
            self._assignments[node_id] = part.assignment
        self._ended[node_id], self._debts[node_id] = part.ended, part.debts
        self.attachments.load_known(part.attachments, node_id, part.mount_debts)
        for namespace_id, nodes in part.writing.items():
            self.writing.load_nodes(namespace_id, nodes)

    async def load(self) -> None:
        """Index nodes and waiting allocations, before anything commits; none are matched until `loaded`."""
        assert self._engine is not None
        self._loading = True
        async for node_id, node in all_of(self._engine, "node"):
            if isinstance(node, Node):
                self._index_key(node_id, None, node)
                self._index_node(node_id, node)
        self._requested.clear()
        async for allocation_id, allocation in all_of(self._engine, "allocation"):
            self._count_requested(None, allocation)
            if _waits(allocation):
                self._waiting.add(allocation_id, _wanted(allocation), allocation)
            if isinstance(allocation, Allocation):
                self._index_lockout(allocation_id, allocation)
        self.lockouts_failed = 0  # those were another runtime's

    def loaded(self) -> None:
        """All runs: match nodes and waiting allocations."""
        self._loading = False
        for allocation_id in list(self._waiting):
            self._match_allocation(allocation_id)

    def follow(self, decision: Decision) -> None:
        """A turn has committed."""
        touched = {node_id for row in decision.rows if (node_id := self._take_in(row))}
        state = decision.state
        message = decision.env.message
        if isinstance(message, StepDone) and message.ok and message.name.startswith("ssh."):
            node_id = message.target.partition(":")[2]
            others = [each for each in self._worked if each[0] != node_id]
            self._worked = [*others[-1:], (node_id, message.ended_us)]
        for sent in decision.sent:
            if isinstance(sent.message, ACCUSING):
                self._accused.setdefault(sent.id, set()).add(sent.row.message_id)
        if decision.kind.name == "node":
            self._acquit(decision.id, decision.env.message_id)
        if isinstance(state, Node):
            self._index_key(decision.id, decision.before, state)
            self._index_node(decision.id, state)
            touched.add(decision.id)
        elif isinstance(state, Allocation):
            self._follow_allocation(decision.id, decision.before, state)
        for node_id in touched:
            node = self.node(node_id)
            if node is not None:
                self._index_node(node_id, node)
                self._match_node(node_id)

    def _count_requested(self, before: Any, state: Any) -> None:
        for allocation, by in ((before, -1), (state, 1)):
            if isinstance(allocation, Allocation) and allocation.state == "requested":
                self._requested[allocation.account_id] += by
                if not self._requested[allocation.account_id]:
                    del self._requested[allocation.account_id]

    def _follow_allocation(self, allocation_id: str, before: Any, state: Allocation) -> None:
        self._count_requested(before, state)
        self._index_lockout(allocation_id, state)
        if not _waits(state):
            self._waiting.take(allocation_id)
            self._withdraw(allocation_id)  # taken up, or never to be answered: a paused one holds its messages
        elif before is None or before.paused:
            self._waiting.add(allocation_id, _wanted(state), state)
            self._match_allocation(allocation_id)

    def _index_lockout(self, allocation_id: str, allocation: Allocation) -> None:
        if LOCKOUT not in allocation.cases:
            self.not_locked_out.discard(allocation_id)
        elif allocation_id not in self.not_locked_out:
            self.not_locked_out.add(allocation_id)
            self.lockouts_failed += 1

    def _take_in(self, row: Struct) -> str:
        """An assignment or debt as it now stands; the node it concerns."""
        if type(row) is AssignmentRow:
            if row.state == "ended":
                self._assignments.pop(row.node_id, None)
                self.load_ended(row.allocation_id, row.node_id, row.ended_us or 0)
            else:
                self._assignments[row.node_id] = (row.allocation_id, row.state)
            return row.node_id
        if type(row) is DebtRow and row.kind == "mount":
            self.attachments.load_debt(row)
            return row.node_id
        if type(row) is DebtRow:
            debts = self._debts.setdefault(row.node_id, {})
            if row.settled_us is None:
                debts[row.debt_id] = row.allocation_id or ""
            else:
                debts.pop(row.debt_id, None)
            return row.node_id
        return ""

    def _dropped(self, kind: str, identifier: str, message_id: str) -> None:
        """The node will never take that message in: it must not stand accused for ever."""
        if kind != "node":
            return
        self._acquit(identifier, message_id)
        node = self.node(identifier)
        if node is not None:
            self._index_node(identifier, node)
            self._match_node(identifier)

    def _acquit(self, node_id: str, message_id: str) -> None:
        """The node has taken the message in, whatever it made of it."""
        messages = self._accused.get(node_id)
        if messages is not None:
            messages.discard(message_id)
            if not messages:
                del self._accused[node_id]

    def _index_key(self, node_id: str, before: Any, node: Node) -> None:
        if isinstance(before, Node) and self._by_key.get(before.ssh_host_key) == node_id:
            del self._by_key[before.ssh_host_key]
        if node.state != "retired":
            self._by_key[node.ssh_host_key] = node_id

    def _index_node(self, node_id: str, node: Node) -> None:
        assignable = node.state == "ready" and node_id not in self._assignments and not self.is_dirty(node_id)
        assignable = assignable and node.restored >= self.restored
        assignable = assignable and not node.probes.unproven and not node.reboot.boot_id
        if assignable and node_id not in self._offered and node_id not in self._accused:
            self._free.add(node_id, node.labels, node)
        else:
            self._free.take(node_id)

    # --- matching ------------------------------------------------------------------------------------

    def _match_allocation(self, allocation_id: str) -> None:
        if self._loading:
            return
        node_id = self._free.first(self._waiting.wanted(allocation_id))
        if node_id is not None:
            self._offer(allocation_id, node_id)

    def _match_node(self, node_id: str) -> None:
        """First come, first served, among those it fits."""
        if self._loading or node_id not in self._free:
            return
        allocation_id = self._waiting.first(node_id, self._free.labels(node_id))
        if allocation_id is not None:
            self._offer(allocation_id, node_id)

    def _offer(self, allocation_id: str, node_id: str) -> None:
        wants, node = self._waiting.take(allocation_id), self._free.take(node_id)
        assert self._engine is not None
        assert wants is not None
        assert node is not None
        offer = self._offers[allocation_id] = Offer(node_id, node.epoch)
        self._offered.add(node_id)

        def settled(_: bool) -> None:
            if self._offers.get(allocation_id) is offer:
                self._withdraw(allocation_id)
            if _waits(self._get("allocation", allocation_id)):
                # The offer was refused; not at once again, or a refusing database would be asked without pause.
                asyncio.get_running_loop().call_later(OFFER_AGAIN_S, self._look_again, allocation_id)

        env = Envelope(offer, trace_id=wants.trace_id, span_id=wants.span_id, priority=True, done=settled)
        self._engine.tell("allocation", allocation_id, env)

    def _withdraw(self, allocation_id: str) -> None:
        """The offer is over, however it ended: whether its node is free is what its committed rows say."""
        offer = self._offers.pop(allocation_id, None)
        if offer is None:
            return
        self._offered.discard(offer.node_id)
        node = self.node(offer.node_id)
        if node is not None:
            self._index_node(offer.node_id, node)
            self._match_node(offer.node_id)

    def _look_again(self, allocation_id: str) -> None:
        """The offer was not taken up: the allocation, if it still waits, is matched again."""
        allocation = self._get("allocation", allocation_id)
        if allocation_id not in self._offers and _waits(allocation):
            self._waiting.add(allocation_id, _wanted(allocation), allocation)
            self._match_allocation(allocation_id)

    def _get(self, kind: str, identifier: str) -> Any:
        return self._engine.store.get(kind, identifier) if self._engine is not None else None


def node_of(target: str) -> str:
    """The node of a step's target: `node:n1`, or something on it, `node:n1/mount:attach_…`."""
    return target.partition(":")[2].partition("/")[0]


def _waits(allocation: object) -> TypeGuard[Allocation]:
    return isinstance(allocation, Allocation) and allocation.state == "requested" and not allocation.paused


def _wanted(allocation: Allocation) -> Wanted:
    return Wanted(frozenset(allocation.node_labels.items()), allocation.wanted_node or "")
