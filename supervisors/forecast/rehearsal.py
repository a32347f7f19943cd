"""A stage for one node: copies of the node, its rentals and attachments, and of what these have of others.

The copies and the indexes over them are of one instant, for nothing is awaited meanwhile. Of other nodes nothing is
taken but what they have of the same namespaces.
"""

import random

import msgspec

from actors.allocation.state import Allocation
from actors.attachment.state import Attachment, mount_ref
from actors.grant.state import GrantState, grant_of
from actors.namespace.state import Namespace
from amends.domain.kinds import ActorState
from amends.kernel import Kernel
from amends.runtime.stage import Stage
from amends.turn.context import Context
from amends.values.errors import Rejected
from amends.values.records import StepRow
from supervisors.forecast.outcomes import Outcomes
from supervisors.guards import Guards
from supervisors.last_seen import LastSeen, Seen
from supervisors.pool import Pool

MOST_LENT = 2_000  # entities that may be copied for one question
OTHERS = 1_000  # attachments of a namespace on other nodes: checks ask whether there is one


class Rehearsal:
    """See above. `kernel` and `pool` are the live ones, and stay as they are."""

    def __init__(self, kernel: Kernel, pool: Pool) -> None:
        self._live, self._known = kernel, pool
        self.seen = LastSeen()
        self.pool = Pool(pool.policy, self.seen, Guards(kernel.limits))
        self.pool.policies, self.pool.mirrors, self.pool.restored = pool.policies, pool.mirrors, pool.restored
        context = Context(
            kernel.domains, epoch=kernel.context.epoch, limits=kernel.limits, facts=self.pool,
            policy_sha256=kernel.context.policy_sha256, address_of=self.pool.address_of,
        )  # fmt: skip
        chance = random.Random(0)  # noqa: S311 - ids that name nothing
        self.stage = Stage(kernel.domains, context, kernel.clock.now_us(), chance.randbytes, self._read_back)
        self.pool.attach(self.stage.engine)
        self.lent: dict[str, ActorState] = {}  # by reference
        self.outcomes = Outcomes(self.stage.engine, context.steps, self.pool)

    async def play(self) -> None:
        """Until nothing happens any more; steps end as `outcomes` says."""
        await self.stage.play(self.outcomes)

    def lend(self, kind: str, identifier: str) -> ActorState | None:
        """A copy of the committed state, if it is in memory: it lives, or owes something. Raises `Rejected`."""
        state = self._live.engine.store.get(kind, identifier)
        if state is None and (why := self._live.engine.store.damage(kind, identifier)):
            raise Rejected("illegal_transition", f"the stored state of {kind}:{identifier} cannot be made out: {why}")
        if state is not None:
            self.stage.lend(kind, identifier, state)
            self.lent[f"{kind}:{identifier}"] = state
        return state

    def lend_node(self, node_id: str) -> ActorState | None:
        """The node and all that its end or its rental's end concerns; the node's state, None where there is none."""
        known = self._known
        node = self.lend("node", node_id)
        self.pool.load_part(node_id, known.part(node_id, OTHERS))
        self.seen.nodes[node_id] = Seen(
            known.heard_boot(node_id), 0.0, known.last_seen_us(node_id), silent=not known.is_heard(node_id)
        )
        for allocation_id in sorted({*known.concerned_by_loss(node_id, 0), *known.debtors(node_id)}):
            self.lend_allocation(allocation_id)
        targets = {f"node:{node_id}", f"agent:{node_id}"}
        for attachment_id in sorted({*known.attachments_on(node_id), *known.owed_mounts(node_id)}):
            targets |= self._lend_attachment(attachment_id)
        self.stage.under_way(self._mine(targets))
        return node

    def lend_around(self, kind: str, identifier: str) -> None:
        """The one that a command is for, and what its decision may concern. Raises `Rejected` for too much."""
        around = {"node": self._around_node, "allocation": self._around_allocation,
                  "attachment": self._around_attachment, "namespace": self._around_namespace,
                  "grant": self._around_grant, "account": self._lend_account}  # fmt: skip
        around.get(kind, lambda name: self.lend(kind, name))(identifier)

    def lend_payments(self, account_id: str, customer: str) -> None:
        """Those that wait for an account which is about to be made."""
        for payment_id in self._known.payers.wanting(account_id, customer):
            if (payment := self.lend("payment", payment_id)) is not None:
                self.pool.payers.load_known(payment_id, payment)

    def _around_node(self, node_id: str) -> None:
        if f"node:{node_id}" not in self.lent:
            self.lend_node(node_id)

    def _around_allocation(self, allocation_id: str) -> None:
        allocation = self.lend_allocation(allocation_id)
        if isinstance(allocation, Allocation) and allocation.node_id is not None:
            self._around_node(allocation.node_id)

    def _around_attachment(self, attachment_id: str) -> None:
        attachment = self.lend("attachment", attachment_id)
        if isinstance(attachment, Attachment):
            self.lend_allocation(attachment.allocation_id)
            if attachment.node_id is not None:
                self._around_node(attachment.node_id)
            self._lend_attachment(attachment_id)

    def _around_namespace(self, namespace_id: str) -> None:
        namespace = self.lend("namespace", namespace_id)
        if not isinstance(namespace, Namespace):
            return
        self._lend_account(namespace.account_id)
        for attachment_id in self._known.attachments_of_namespace(namespace_id):
            self._around_attachment(attachment_id)
            if len(self.lent) > MOST_LENT:
                raise Rejected("invalid_request", f"more than {MOST_LENT} entities are concerned: that is not played")
        for node_id in namespace.drift:
            self.lend("grant", grant_of(namespace_id, node_id))
            self._around_node(node_id)

    def _around_grant(self, grant_id: str) -> None:
        namespace_id, _, node_id = grant_id.partition(".")
        self.lend("grant", grant_id)
        self._around_namespace(namespace_id)
        self._around_node(node_id)

    def lend_allocation(self, allocation_id: str) -> ActorState | None:
        """A rental, its account and its meter."""
        allocation = self.lend("allocation", allocation_id)
        if isinstance(allocation, Allocation):
            self._lend_account(allocation.account_id)
            meter_id = allocation.billing.meter_id or ""
            if (meter := self._known.meters.known(meter_id)) is not None:
                self.pool.meters.load_known(meter_id, meter)
        return allocation

    def _lend_account(self, account_id: str) -> None:
        if f"account:{account_id}" not in self.lent:
            self.lend("account", account_id)
            self.pool.balances.load([(account_id, self._known.balance_minor(account_id))])

    def _lend_attachment(self, attachment_id: str) -> set[str]:
        """The attachment, its namespace, its rental and its grant; the targets of its steps."""
        attachment = self.lend("attachment", attachment_id)
        if not isinstance(attachment, Attachment):
            return set()
        if f"allocation:{attachment.allocation_id}" not in self.lent:
            self.lend_allocation(attachment.allocation_id)
        self._lend_account(attachment.account_id)
        self.lend("namespace", attachment.namespace_id)
        grant = self.lend("grant", grant_of(attachment.namespace_id, attachment.node_id or ""))
        held = grant.held if isinstance(grant, GrantState) else ()
        return {mount_ref(attachment, attachment_id)} | {
            f"provider:{attachment.provider_id}/grant:{each.grant_id}" for each in held
        }

    def _mine(self, targets: set[str]) -> list[StepRow]:
        return [row for row in self._live.dispatcher.open_on(targets) if row.entity in self.lent]

    async def _read_back(self, kind: str, identifier: str) -> bytes | None:
        """Who is told of it and was not lent: from memory, else as it is stored. Raises `Unavailable`."""
        state = self._live.engine.store.get(kind, identifier)
        if state is not None:
            return msgspec.json.encode(state)
        stored = await self._live.journal.read_actor(kind, identifier)
        return stored.body if stored is not None else None
