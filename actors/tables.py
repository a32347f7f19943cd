"""The rental domain's own rows, in the order of their write statements. Times in microseconds, money in millionths."""

import hashlib
from typing import ClassVar

from msgspec import Struct

from amends.values.facets import Facet
from amends.values.tables import Live, Table


class AssignmentRow(Struct):
    """The tie between an allocation and its node: reserved, active, ended (A1: one live per node)."""

    table: ClassVar[Table] = Table(name="assignments", key=("allocation_id",), after="ended_us",
        live=Live("state", not_in=("ended",)), facets=(
        Facet(name="assignment", columns=("node_id", "since_us")),
        Facet(
            name="assignment.state", wins="last",
            columns=("state", "ended_us", "jseq"),
        ),
    ))  # fmt: skip

    allocation_id: str
    node_id: str
    state: str
    since_us: int
    ended_us: int | None


class DebtRow(Struct):
    """A cleanup a node still owes; settled when `settled_us` is set."""

    table: ClassVar[Table] = Table(name="debts", key=("debt_id",), live=Live("settled_us"), facets=(
        Facet(
            name="debt",
            columns=("node_id", "kind", "target_ref", "allocation_id", "attachment_id", "since_us"),
        ),
        Facet(
            name="debt.state", wins="last",
            columns=("attempts", "settled_us", "jseq"),
        ),
    ))  # fmt: skip

    debt_id: str
    node_id: str
    kind: str
    target_ref: str
    allocation_id: str | None
    attachment_id: str | None
    attempts: int
    since_us: int
    settled_us: int | None


class MeterRow(Struct):
    """The usage clock of one allocation (`tables.md`, meter)."""

    table: ClassVar[Table] = Table(name="meters", key=("meter_id",), money=True, found=True,
        live=Live("state", is_in=("accruing",)), facets=(
        Facet(
            name="meter",
            columns=("allocation_id", "account_id", "rate_uminor_per_hour", "policy_version", "policy_sha256",
                "started_us"),
        ),
        Facet(
            name="meter.state", wins="last",
            columns=("state", "stop_cause", "posted_through_us", "jseq"),
        ),
        Facet(
            name="meter.stop", wins="least", by="stopped_us",
            columns=("stopped_us",),
        ),
        Facet(name="meter.clock", columns=("unit_us", "window_us"), default=(0, 0)),
    ))  # fmt: skip

    meter_id: str
    allocation_id: str
    account_id: str
    state: str
    rate_uminor_per_hour: int
    policy_version: str
    policy_sha256: str
    started_us: int
    stopped_us: int | None
    stop_cause: str | None
    posted_through_us: int
    unit_us: int  # of its policy, as is the next; 0 of meters that an older release opened
    window_us: int


class NodesSeenRow(Struct):
    """When the nodes of one part of the fleet were last heard: a checkpoint of the detector, {node: [boot id, us]}.

    A part is what `part_of` says of its names: a fleet of 100 000 is written in 256 rows.
    """

    table: ClassVar[Table] = Table(name="nodes_seen", key=("part",), live=Live(), json=("seen",), facets=(
        Facet(name="nodes_seen", wins="last", columns=("seen", "jseq")),
    ))  # fmt: skip

    part: str
    seen: str


def part_of(node_id: str) -> str:
    """The part of the fleet that a node is checkpointed with; the view of nodes reckons the same."""
    return hashlib.md5(node_id.encode(), usedforsecurity=False).hexdigest()[:2]


class NodeSeenRow(Struct):
    """When a node was last heard, as releases up to 0.3 wrote it, a row each; read until they are gone."""

    table: ClassVar[Table] = Table(name="node_seen", key=("node_id",), live=Live(), facets=(
        Facet(
            name="node_seen", wins="newest", by="last_heartbeat_us",
            columns=("boot_id", "last_heartbeat_us"),
        ),
    ))  # fmt: skip

    node_id: str
    boot_id: str
    last_heartbeat_us: int


class LedgerRow(Struct):
    """An entry of an account's ledger: append-only, amounts of minor units, one per key for ever (credit-policy.md)."""

    table: ClassVar[Table] = Table(name="ledger_entries", key=("entry_id",), money=True, facets=(
        Facet(
            name="ledger",
            columns=("account_id", "meter_id", "entry_type", "amount_minor", "currency", "idempotency_key",
                "payload_hash", "rule_id", "window_start_us", "created_us", "jseq"),
        ),
    ))  # fmt: skip

    entry_id: str
    account_id: str
    meter_id: str | None
    entry_type: str
    amount_minor: int
    currency: str
    idempotency_key: str
    payload_hash: str
    rule_id: str | None
    window_start_us: int | None
    created_us: int


class StripeEventRow(Struct):
    """An event of Stripe's by its id, one for ever: what came of it, and since when we know (R06)."""

    table: ClassVar[Table] = Table(name="stripe_events", key=("event_id",), found=True, facets=(
        Facet(name="stripe_event", columns=("type", "payment_id", "received_us")),
        Facet(name="stripe_event.state", wins="last", columns=("state", "account_id", "jseq")),
    ))  # fmt: skip

    event_id: str
    type: str
    payment_id: str
    state: str
    account_id: str | None
    received_us: int


class MirrorRow(Struct):
    """A credit of the ledger on its way to Stripe (`owed`), there (`done`), or given up (`failed`)."""

    table: ClassVar[Table] = Table(name="mirrored_credits", key=("ledger_key",), facets=(
        Facet(name="mirror", columns=("account_id", "customer", "amount_minor", "currency", "first_us")),
        Facet(name="mirror.state", wins="last", columns=("state", "generation", "transaction", "jseq")),
    ))  # fmt: skip

    ledger_key: str
    account_id: str
    customer: str
    amount_minor: int
    currency: str
    state: str
    first_us: int
    generation: int
    transaction: str


class GrantRow(Struct):
    """A grant at a storage provider: intended before the provider is asked, and kept for ever (`provider_grant`)."""

    table: ClassVar[Table] = Table(name="provider_grants", key=("grant_id",), facets=(
        Facet(name="grant", columns=("namespace_id", "node_id", "provider_id", "mode")),
        Facet(name="grant.state", wins="last", columns=("state", "changed_us", "jseq")),
    ))  # fmt: skip

    grant_id: str
    namespace_id: str
    node_id: str
    provider_id: str
    mode: str
    state: str
    changed_us: int


RENTAL_ROWS: tuple[type[Struct], ...] = (
    AssignmentRow, DebtRow, MeterRow, LedgerRow, StripeEventRow, MirrorRow, GrantRow, NodesSeenRow, NodeSeenRow,
)  # fmt: skip
