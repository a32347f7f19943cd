"""The rental domain's own rows, in the order of their write statements. Times in microseconds, money in millionths."""

from typing import ClassVar

from msgspec import Struct

from amends.values.facets import Facet


class AssignmentRow(Struct):
    """The tie between an allocation and its node: reserved, active, ended (A1: one live per node)."""

    facets: ClassVar[tuple[Facet, ...]] = (
        Facet(name="assignment", table="assignments", key=("allocation_id",), columns=("node_id", "since_us")),
        Facet(
            name="assignment.state", table="assignments", key=("allocation_id",), wins="last",
            columns=("state", "ended_us", "jseq"),
        ),
    )  # fmt: skip

    allocation_id: str
    node_id: str
    state: str
    since_us: int
    ended_us: int | None


class DebtRow(Struct):
    """A cleanup a node still owes; settled when `settled_us` is set."""

    facets: ClassVar[tuple[Facet, ...]] = (
        Facet(
            name="debt", table="debts", key=("debt_id",),
            columns=("node_id", "kind", "target_ref", "allocation_id", "attachment_id", "since_us"),
        ),
        Facet(
            name="debt.state", table="debts", key=("debt_id",), wins="last",
            columns=("attempts", "settled_us", "jseq"),
        ),
    )  # fmt: skip

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

    facets: ClassVar[tuple[Facet, ...]] = (
        Facet(
            name="meter", table="meters", key=("meter_id",),
            columns=("allocation_id", "account_id", "rate_uminor_per_hour", "policy_version", "policy_sha256",
                "started_us"),
        ),
        Facet(
            name="meter.state", table="meters", key=("meter_id",), wins="last",
            columns=("state", "stop_cause", "posted_through_us", "jseq"),
        ),
        Facet(
            name="meter.stop", table="meters", key=("meter_id",), wins="least", by="stopped_us",
            columns=("stopped_us",),
        ),
    )  # fmt: skip

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


class NodeSeenRow(Struct):
    """When a node was last heard (checkpoint of the detector)."""

    facets: ClassVar[tuple[Facet, ...]] = (
        Facet(
            name="node_seen", table="node_seen", key=("node_id",), wins="newest", by="last_heartbeat_us",
            columns=("boot_id", "last_heartbeat_us"),
        ),
    )  # fmt: skip

    node_id: str
    boot_id: str
    last_heartbeat_us: int


# Nothing writes the ledger in this release: whatever stands there was slipped in.
LEDGER = Facet(
    name="ledger", table="ledger_entries", key=("entry_id",),
    columns=(
        "account_id", "meter_id", "entry_type", "amount_minor", "currency", "idempotency_key", "payload_hash",
        "rule_id", "window_start_us", "created_us", "jseq",
    ),
)  # fmt: skip

RENTAL_TABLES: dict[type[Struct], str] = {
    AssignmentRow: "write_assignments",
    DebtRow: "write_debts",
    MeterRow: "write_meters",
    NodeSeenRow: "write_node_seen",
}
