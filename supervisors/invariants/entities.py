"""What must hold of nodes, allocations, meters and notifications at every committed instant."""

import re
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

from supervisors.invariants.records import Records, Violation, grouped

HOLDING = ("provisioning", "activating", "active", "releasing")
ON_ITS_WAY = {
    "allocation": ("requested", "provisioning", "activating", "releasing"),
    "notification": ("pending",),
}
COMES_BACK = {"offline", "cleanup_exhausted"}  # reasons that a clean-up takes away
OVERDUE_US = 300_000_000
ANEW = ("idle", "retired")  # access that nobody uses, and a node that is gone
TRACE = re.compile(r"[0-9a-f]{32}")


def assigned(records: Records) -> Iterator[Violation]:
    """A node has one live assignment at most, and it fits its allocation (A1)."""
    for node_id, rows in grouped(records.assignments, lambda row: row["node_id"]).items():
        if len(rows) > 1:
            yield Violation("A1", f"node:{node_id}", "several live assignments")
    for row in records.assignments:
        allocation = records.allocation(row["allocation_id"])
        fits = (
            allocation is not None
            and allocation["body"].get("node_id") == row["node_id"]
            and allocation["state"] in HOLDING
            and (row["state"] == "active") == (allocation["state"] in ("active", "releasing"))
        )
        if not fits:
            yield Violation("A1", f"allocation:{row['allocation_id']}", "a live assignment does not fit its allocation")
    held = {row["allocation_id"] for row in records.assignments}
    for allocation in records.actors("allocation", *HOLDING):
        if allocation["id"] not in held:
            yield Violation("A1", f"allocation:{allocation['id']}", "it lives without an assignment")


def moved(records: Records) -> Iterator[Violation]:
    """What is not at rest is moved on by a timer, a step or a message, or a case says why not (A3)."""
    for kind, states in ON_ITS_WAY.items():
        for row in records.actors(kind, *states):
            ref = f"{kind}:{row['id']}"
            if row["due_us"] is None and "cases" not in row["body"] and ref not in records.moving:
                yield Violation("A3", ref, "nothing moves it on")
    for debt in records.debts:
        allocation, ref = records.allocation(debt["allocation_id"]), f"allocation:{debt['allocation_id']}"
        waits = ref in records.moving or ref in records.with_open_case
        if debt["kind"] == "user" and allocation is not None and allocation["due_us"] is None and not waits:
            yield Violation("A3", ref, "nothing moves its cleanup on")
    for row in records.of("step"):
        kind, _, identifier = row["entity"].partition(":")
        if row["state"] == "intended" and (kind, identifier) not in records.states:
            yield Violation("A3", row["entity"], "a step is intended for nobody")


def deferred(records: Records) -> Iterator[Violation]:
    """An event of Stripe's is deferred only as long as its payment waits (A3)."""
    waiting = {row["id"] for row in records.actors("payment", "noted", "refused")}
    for row in records.of("stripe_events"):
        if row["state"] == "deferred" and row["payment_id"] not in waiting:
            yield Violation("A3", f"stripe_event:{row['event_id']}", "it is deferred, and its payment does not wait")


def brought_back(records: Records) -> Iterator[Violation]:
    """A node whose reasons pass is on its way back (A3)."""
    owing = {debt["node_id"] for debt in records.debts}
    for node in records.actors("node", "quarantined"):
        ref, reasons = f"node:{node['id']}", node["body"].get("quarantine_reasons")
        let_back = _returning(node["body"]) is True
        comes_back = let_back or (reasons is not None and (COMES_BACK.issuperset(reasons) or "restored" in reasons))
        waits = node["id"] in owing or ref in records.moving or ref in records.with_open_case
        if comes_back and node["due_us"] is None and not waits:
            yield Violation("A3", ref, "nothing brings it back")


def overdue(records: Records, now_us: int, alive_since_us: int) -> Iterator[Violation]:
    """Under a runtime that has lived for so long, no timer is late by minutes (A3)."""
    latest_us = now_us - OVERDUE_US
    for (kind, identifier), row in records.states.items():
        late = row["due_us"] is not None and row["due_us"] < latest_us and alive_since_us < latest_us
        if late and f"{kind}:{identifier}" not in records.with_case:
            yield Violation("A3", f"{kind}:{identifier}", "a timer is overdue and no case says why")


def owed(records: Records) -> Iterator[Violation]:
    """Debts and pending clean-ups are the same thing, said twice (A4); of a mount that a message says."""
    users = [debt for debt in records.debts if debt["kind"] == "user"]
    for debt in users:
        allocation = records.allocation(debt["allocation_id"])
        if allocation is None or allocation["body"].get("cleanup_pending") is not True:
            yield Violation("A4", debt["target_ref"], "a debt whose allocation owes no cleanup")
    listed = {debt["allocation_id"] for debt in records.debts}
    for row in records.actors("allocation"):
        owes = not {"owing", "cases", "runs"}.isdisjoint(row["body"])
        ref = f"allocation:{row['id']}"
        pending = owes and row["body"].get("cleanup_pending") is True
        if pending and row["id"] not in listed and ref not in records.told:
            yield Violation("A4", ref, "a pending cleanup that no debt lists")


def metered(records: Records) -> Iterator[Violation]:
    """The clock runs exactly while the allocation is active (B6); a window is debited once (B3)."""
    running = {row["allocation_id"] for row in records.of("meters") if row["state"] == "accruing"}
    for row in records.actors("allocation", "active"):
        if row["id"] not in running:
            yield Violation("B6", f"allocation:{row['id']}", "it is active and its clock does not run")
    for meter in records.of("meters"):
        allocation, ref = records.allocation(meter["allocation_id"]), f"meter:{meter['meter_id']}"
        if meter["state"] == "accruing" and (allocation is None or allocation["state"] != "active"):
            yield Violation("B6", ref, "it runs and its allocation is not active")
        backwards = meter["stopped_us"] is not None and meter["stopped_us"] < meter["started_us"]
        if allocation is not None and (backwards or meter["state"] != _billing(allocation["body"])):
            yield Violation("B6", ref, "it does not say what its allocation says")
    debits = [row for row in records.of("ledger_entries") if row["entry_type"] == "debit"]
    for (meter_id, window), rows in grouped(debits, lambda row: (row["meter_id"], row["window_start_us"])).items():
        if window is not None and len(rows) > 1:
            yield Violation("B3", f"meter:{meter_id}/window:{window}", "several debits of one window")


def _returning(body: Mapping[str, Any]) -> Any:
    """Whether an operator lets a node back; a body that no release has touched since 0.2 is flat."""
    return body.get("way_back", {}).get("returning", body.get("returning"))


def _billing(body: Mapping[str, Any]) -> Any:
    """What an allocation says of its meter; a body that no release has touched since 0.2 is flat."""
    return body.get("billing", {}).get("state", body.get("billing_state"))


def audited(records: Records) -> Iterator[Violation]:
    """No state changes without its entry (U2)."""
    last: dict[str, str] = {}
    for entry in sorted(records.of("audit_log"), key=itemgetter("seq")):
        if entry["to_state"] is not None:
            last[entry["target_ref"]] = entry["to_state"]
    for (kind, identifier), row in records.states.items():
        if last.get(f"{kind}:{identifier}") != row["state"]:
            yield Violation("U2", f"{kind}:{identifier}", "its state is not the one last audited")


def replayed(records: Records) -> Iterator[Violation]:
    """Whoever replays the audit comes from state to state (U3); some may come to be anew (`states.md`)."""
    what, last = "an entry does not begin in the state in which the one before it ended", dict[str, str]()
    for entry in sorted(records.of("audit_log"), key=itemgetter("seq")):
        if entry["to_state"] is not None:
            was = last.get(entry["target_ref"])
            if was is not None and entry["from_state"] != was and (entry["from_state"] is not None or was not in ANEW):
                yield Violation("U3", entry["target_ref"], what)
            last[entry["target_ref"]] = entry["to_state"]


def told(records: Records) -> Iterator[Violation]:
    """Each entry says who and under which epoch, and that of a change in which trace (U4)."""
    for entry in records.of("audit_log"):
        lost = entry["to_state"] is not None and TRACE.fullmatch(entry["trace_id"]) is None
        if not entry["actor"] or entry["epoch"] < 1 or lost:
            yield Violation("U4", f"audit_log:{entry['audit_id']}", "it does not say who, in which trace or epoch")
