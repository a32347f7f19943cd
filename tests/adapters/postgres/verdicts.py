"""What the view `invariant_violation` says of a database, and what Python says of the same rows."""

import json
import time
from collections import Counter
from typing import Any

import asyncpg

from supervisors.invariants import committed
from supervisors.invariants.entities import overdue
from supervisors.invariants.records import Records

ROWS = (
    "step", "message", "outbox", "debts", "assignments", "meters", "ledger_entries", "recovery_run", "recovery_action",
    "compensation", "ops_case", "audit_log", "journal_head", "stripe_events", "mirrored_credits",
    "provider_grants",
)  # fmt: skip
KEPT = ("ledger_balances",)  # what the database keeps by itself
STATES = """
    SELECT 'account' AS kind, account_id AS id, state, due_us, body FROM accounts
    UNION ALL SELECT 'node', node_id, state, due_us, body FROM nodes
    UNION ALL SELECT 'allocation', allocation_id, state, due_us, body FROM allocations
    UNION ALL SELECT 'payment', payment_id, state, due_us, body FROM payments
    UNION ALL SELECT 'attachment', attachment_id, state, due_us, body FROM platform_storage_attachments
    UNION ALL SELECT 'namespace', namespace_id, state, due_us, body FROM namespaces
    UNION ALL SELECT 'notification', notification_id, state, due_us, body FROM notifications
    UNION ALL SELECT kind, id, state, due_us, body FROM actors
"""
Verdict = Counter[tuple[str, str, str]]  # name, what it is about, and what is wrong


async def rows_of(
    connection: "asyncpg.Connection[Any]", names: tuple[str, ...] = ROWS
) -> dict[str, list[dict[str, Any]]]:
    """All rows by table, those of states as one."""
    found = {name: [dict(row) for row in await connection.fetch(f"SELECT * FROM {name}")] for name in names}
    states = [dict(row) for row in await connection.fetch(STATES)]
    return {**found, "state": [{**row, "body": json.loads(row["body"])} for row in states]}


async def of_python(connection: "asyncpg.Connection[Any]") -> Verdict:
    records = Records(await rows_of(connection, (*ROWS, *KEPT)))
    since = await connection.fetchval("SELECT started_us FROM lease JOIN runtime_epoch USING (epoch)")
    found = [*committed(records), *overdue(records, time.time_ns() // 1000, since)]
    return Counter((each.name, each.ref, each.what) for each in found)


async def of_view(connection: "asyncpg.Connection[Any]") -> Verdict:
    found = await connection.fetch("SELECT * FROM public_v1.invariant_violation")
    return Counter((row["name"], row["target_ref"], json.loads(row["details"])["what"]) for row in found)
