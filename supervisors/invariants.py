"""What must hold of plain records, in any world at rest: the simulated one, and rows read from Postgres alike. Pure.

Each check yields what is wrong, by the name of `reliability.md`; nothing yielded is nothing wrong.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from amends.values.canonical import ZERO_HASH, chain_hash

Row = Mapping[str, Any]
Tables = Mapping[str, Iterable[Row]]


class Violation(msgspec.Struct, frozen=True):
    """One thing that does not hold."""

    name: str
    ref: str
    what: str


def at_rest(tables: Tables) -> Iterator[Violation]:
    """A world that owes nothing: no intent open, no message waiting, every event out."""
    for row in tables["step"]:
        if row["ended_us"] is None:
            yield Violation("A3", row["entity"], f"the step {row['name']} is still intended")
    for row in tables["message"]:
        yield Violation("A3", f"{row['to_kind']}:{row['to_id']}", f"the message {row['type']} still waits")
    for row in tables["outbox"]:
        if row["state"] == "pending":
            yield Violation("C7", row["entity"], f"the event {row['outbox_id']} never went out")
    for row in tables["recovery_run"]:
        if row["ended_us"] is None:
            yield Violation("C6", row["entity"], f"the run {row['recovery_id']} of {row['matrix_row']} has not ended")


def runs(tables: Tables) -> Iterator[Violation]:
    """Sequences are gapless (C8); one compensation a cause and try (C1); none recovered while an undo failed (C6)."""
    actions: dict[str, list[int]] = defaultdict(list)
    for row in tables["recovery_action"]:
        actions[row["recovery_trace_id"]].append(row["sequence"])
    for trace, numbers in actions.items():
        if sorted(numbers) != list(range(1, len(numbers) + 1)):
            yield Violation("C8", trace, f"the sequence has gaps: {sorted(numbers)}")
    newest: dict[tuple[str, str], Row] = {}
    for row in sorted(tables["compensation"], key=lambda each: each["sequence"]):
        newest[row["recovery_trace_id"], row["target_ref"]] = row
    recovered = {row["recovery_trace_id"] for row in tables["recovery_run"] if row["final_outcome"] == "recovered"}
    for (trace, target), row in newest.items():
        if trace in recovered and row["outcome"] != "success":
            yield Violation("C6", trace, f"recovered, and the undo of {target} is {row['outcome']}")
    for key, count in Counter(row["comp_key"] for row in tables["compensation"]).items():
        if count > 1:
            yield Violation("C1", key, f"recorded {count} times")


def audit(entries: Sequence[Row]) -> Iterator[Violation]:
    """The chain is gapless and valid (U1)."""
    previous = ZERO_HASH
    for number, row in enumerate(sorted(entries, key=lambda each: each["seq"]), 1):
        details = msgspec.json.decode(row["details"]) if isinstance(row["details"], str) else row["details"]
        fields = (
            row["audit_id"], row["seq"], row["at_us"], row["actor"], row["action"], row["target_ref"],
            row["from_state"], row["to_state"], row["reason"], row["request_id"], row["trace_id"],
            row["recovery_trace_id"], row["epoch"], details,
        )  # fmt: skip
        if row["seq"] != number or row["prev_hash"] != previous or row["hash"] != chain_hash(previous, fields):
            yield Violation("U1", f"audit_log {row['seq']}", "the chain does not fit here")
            return
        previous = row["hash"]


def money(tables: Tables) -> Iterator[Violation]:
    """One meter an allocation; a stop is never before its start (B6); what has ended does not tick."""
    for allocation, count in Counter(row["allocation_id"] for row in tables["meters"]).items():
        if count > 1:
            yield Violation("B1", allocation, f"{count} meters")
    for row in tables["meters"]:
        if row["stopped_us"] is not None and row["stopped_us"] < row["started_us"]:
            yield Violation("B6", row["meter_id"], "it stops before it starts")


def events_in_order(published: Sequence[tuple[str, int]]) -> Iterator[Violation]:
    """Of each entity, numbered events went out in their order, at least once each."""
    last: dict[str, int] = {}
    for entity, seq in published:
        if seq > last.get(entity, 0) + 1:
            yield Violation("C7", entity, f"event {seq} went out before {last.get(entity, 0) + 1}")
        last[entity] = max(seq, last.get(entity, 0))


def fingerprint(tables: Tables) -> str:
    """One hash over all rows, whatever order they are in."""
    rows = {name: sorted(msgspec.json.encode(dict(row), order="sorted") for row in found)
            for name, found in tables.items()}  # fmt: skip
    digest = hashlib.sha256()
    for name in sorted(rows):
        for each in rows[name]:
            digest.update(name.encode() + each)
    return digest.hexdigest()
