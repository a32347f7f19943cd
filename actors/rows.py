"""The rental domain's own rows, in the order of their write statements. Times in microseconds, money in millionths."""

from msgspec import Struct


class AssignmentRow(Struct):
    """The tie between an allocation and its node: reserved, active, ended (A1: one live per node)."""

    allocation_id: str
    node_id: str
    state: str
    since_us: int
    ended_us: int | None


class DebtRow(Struct):
    """A cleanup a node still owes; settled when `settled_us` is set."""

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

    node_id: str
    boot_id: str
    last_heartbeat_us: int


RENTAL_TABLES: dict[type[Struct], str] = {
    AssignmentRow: "write_assignments",
    DebtRow: "write_debts",
    MeterRow: "write_meters",
    NodeSeenRow: "write_node_seen",
}
