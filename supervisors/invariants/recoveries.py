"""What must hold of runs, actions, compensations, events and the audit chain at every committed instant."""

from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

from amends.values.canonical import ZERO_HASH
from supervisors.invariants.records import Records, Row, Violation, grouped

FINAL = ("recovered", "failed")
UNDOES = ("compensation", "fallback")
ACTED = ("recovery_trace_id", "sequence", "target_ref", "outcome")


def open_runs(records: Records) -> Iterator[Violation]:
    """One open run per entity and row (C1), written by its entity alone; outcome and end fit (C6)."""
    runs = {row["recovery_id"]: row for row in records.of("recovery_run")}
    still = [row for row in runs.values() if row["ended_us"] is None]
    for (entity, _), rows in grouped(still, lambda row: (row["entity"], row["matrix_row"])).items():
        if len(rows) > 1:
            yield Violation("C1", entity, "several open runs of one row")
    held = [
        (f"{kind}:{identifier}", run["recovery_id"])
        for (kind, identifier), row in records.states.items()
        for run in row["body"].get("runs", {}).values()
    ]
    written = {recovery_id for _, recovery_id in held}
    for row in still:
        if row["recovery_id"] not in written:
            yield Violation("C6", row["entity"], "an open run that nobody writes")
    for ref, recovery_id in held:
        run = runs.get(recovery_id)
        if run is None or run["ended_us"] is not None:
            yield Violation("C6", ref, "it writes a run that is not open")
    for row in runs.values():
        if (row["ended_us"] is None) == (row["final_outcome"] in FINAL):
            yield Violation("C6", row["entity"], "outcome and end do not fit")


def ended_runs(records: Records) -> Iterator[Violation]:
    """A failed run has its case (C4); none recovered while the last undo of a target did not succeed (C6)."""
    actions = grouped(records.of("recovery_action"), lambda row: row["recovery_trace_id"])
    cases = grouped(records.of("ops_case"), lambda row: (row["kind"], row["target_ref"]))
    undone = grouped(records.of("compensation"), lambda row: row["recovery_trace_id"])
    for run in records.of("recovery_run"):
        own = actions.get(run["recovery_trace_id"], [])
        if run["final_outcome"] == "failed" and not any(
            case["state"] != "resolved" or case["jseq"] >= run["jseq"]
            for action in own
            if action["action_type"] == "escalate"
            for case in cases.get((action["what"], action["target_ref"]), [])
        ):
            yield Violation("C4", run["entity"], "a failed run without a case")
        if run["final_outcome"] == "recovered":
            for undo in undone.get(run["recovery_trace_id"], []):
                if undo["outcome"] != "success" and not _succeeded_later(undo, own):
                    what = "recovered, though the last undo of a target did not succeed"
                    yield Violation("C6", run["entity"], what)


def _succeeded_later(undo: Row, actions: list[Row]) -> bool:
    return any(
        later["target_ref"] == undo["target_ref"]
        and later["sequence"] > undo["sequence"]
        and later["outcome"] == "success"
        and later["action_type"] in UNDOES
        for later in actions
    )


def numbered(records: Records) -> Iterator[Violation]:
    """Actions are numbered without gaps, belong to a run, and say what their compensations say (C8)."""
    traces = {row["recovery_trace_id"] for row in records.of("recovery_run")}
    actions = records.of("recovery_action")
    for trace, rows in grouped(actions, lambda row: row["recovery_trace_id"]).items():
        numbers = [row["sequence"] for row in rows]
        if len(numbers) != max(numbers) or min(numbers) != 1:
            yield Violation("C8", f"recovery_run:{trace}", "gaps in the sequence")
    for row in actions:
        if row["recovery_trace_id"] not in traces:
            yield Violation("C8", f"recovery_run:{row['recovery_trace_id']}", "an action of no run")
    acted = {row["action_id"]: row for row in actions if row["action_type"] == "compensation"}
    undone = {row["action_id"]: row for row in records.of("compensation")}
    for action_id in sorted(acted.keys() | undone.keys()):
        one, other = acted.get(action_id), undone.get(action_id)
        if one is None or other is None or _acted(one) != _acted(other):
            trace = (one or other or {})["recovery_trace_id"]
            yield Violation("C8", f"recovery_run:{trace}", "a compensation and its action differ")


def _acted(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ACTED)


def published(records: Records) -> Iterator[Violation]:
    """No event counts as published before a publish (C7)."""
    for row in records.of("outbox"):
        if row["state"] == "published" and (row["attempts"] < 1 or row["published_us"] is None):
            yield Violation("C7", f"outbox:{row['outbox_id']}", "published without a publish")


def chained(records: Records) -> Iterator[Violation]:
    """Each audit entry follows the one before it, and the journal's head says which is the last (U1)."""
    seq, last = 0, ZERO_HASH
    for row in sorted(records.of("audit_log"), key=itemgetter("seq")):
        if (row["seq"], row["prev_hash"]) != (seq + 1, last):
            yield Violation("U1", f"audit_log:{row['audit_id']}", "it does not follow the entry before it")
        seq, last = row["seq"], row["hash"]
    for head in records.of("journal_head"):
        if (head["audit_seq"], head["hash"]) != (seq, last):
            yield Violation("U1", "audit_log", "the chain does not end where the journal says")
