"""What must hold of a world at rest, or of what left the database: no view of one instant says it."""

from collections.abc import Iterator, Sequence
from operator import itemgetter

import msgspec

from amends.values.canonical import ZERO_HASH, chain_hash
from supervisors.invariants.records import Records, Row, Violation


def at_rest(records: Records) -> Iterator[Violation]:
    """A world that owes nothing: no intent open, no message waiting, every event out, every run ended."""
    for row in records.of("step"):
        if row["ended_us"] is None:
            yield Violation("A3", row["entity"], f"the step {row['name']} is still intended")
    for row in records.of("message"):
        yield Violation("A3", f"{row['to_kind']}:{row['to_id']}", f"the message {row['type']} still waits")
    for row in records.of("outbox"):
        if row["state"] == "pending":
            yield Violation("C7", row["entity"], f"the event {row['outbox_id']} never went out")
    for row in records.of("recovery_run"):
        if row["ended_us"] is None:
            yield Violation("C6", row["entity"], f"the run {row['recovery_id']} of {row['matrix_row']} has not ended")


def hashed(records: Records) -> Iterator[Violation]:
    """The hash of each audit entry is that of its fields and of the entry before it (U1)."""
    previous = ZERO_HASH
    for row in sorted(records.of("audit_log"), key=itemgetter("seq")):
        if row["hash"] != chain_hash(previous, _fields(row)):
            yield Violation("U1", f"audit_log:{row['audit_id']}", "its hash is not that of what it says")
            return
        previous = row["hash"]


def _fields(row: Row) -> tuple[object, ...]:
    details = msgspec.json.decode(row["details"]) if isinstance(row["details"], str) else row["details"]
    return (
        row["audit_id"], row["seq"], row["at_us"], row["actor"], row["action"], row["target_ref"],
        row["from_state"], row["to_state"], row["reason"], row["request_id"], row["trace_id"],
        row["recovery_trace_id"], row["epoch"], details,
    )  # fmt: skip


def in_order(published: Sequence[tuple[str, int]]) -> Iterator[Violation]:
    """Of each entity, numbered events stand on the bus in their order, at least once each (C7)."""
    last: dict[str, int] = {}
    for entity, seq in published:
        if seq > last.get(entity, 0) + 1:
            yield Violation("C7", entity, f"event {seq} went out before {last.get(entity, 0) + 1}")
        last[entity] = max(seq, last.get(entity, 0))
