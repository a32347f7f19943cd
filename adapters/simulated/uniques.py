"""What the schema holds unique, as data: the simulated journal refuses what the migrations' indexes refuse.

A test compares the names with the catalog of a migrated database.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

Row = Mapping[str, Any]


class Unique(Struct, frozen=True):
    """At most one row of the table may have these values; `among` says of which rows that holds.

    Of a state table (`state`) the columns are those of the body. Nulls are equal to nothing.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    among: Callable[[Row], bool] = lambda row: True
    state: bool = False

    def key(self, row: Row) -> tuple[Any, ...] | None:
        """What must be this row's alone, None for nothing."""
        if not self.among(row):
            return None
        values = tuple(row.get(column) for column in self.columns)
        return None if None in values else values


class Check(Struct, frozen=True):
    """What every row of a table must be like."""

    name: str
    table: str
    holds: Callable[[Row], bool]


REF = re.compile(r"[0-9a-f]{32}:[0-9a-f]{16}")
# Of the schema's checks those that say something of other rows; the others are types and names of states.
CHECKS = (
    Check(
        "compensation_compensated_action_ref_check", "compensation",
        lambda row: bool(REF.fullmatch(row["compensated_action_ref"])),
    ),
    Check("ledger_entries_amount_minor_check", "ledger_entries", lambda row: row["amount_minor"] >= 0),
)  # fmt: skip
UNIQUES = (
    Unique("notifications_dedupe", "notifications", ("dedupe_key",), state=True),
    Unique("node_host_key", "nodes", ("ssh_host_key",), lambda row: row["state"] != "retired", state=True),
    Unique("command_key", "command_reply", ("caller", "key")),
    Unique("recovery_run_recovery_trace_id_key", "recovery_run", ("recovery_trace_id",)),
    Unique("recovery_action_recovery_trace_id_sequence_key", "recovery_action", ("recovery_trace_id", "sequence")),
    Unique("compensation_action_id_key", "compensation", ("action_id",)),
    Unique("compensation_comp_key_key", "compensation", ("comp_key",)),
    Unique("compensation_recovery_trace_id_sequence_key", "compensation", ("recovery_trace_id", "sequence")),
    Unique("ops_case_open", "ops_case", ("target_ref", "kind"), lambda row: row["state"] != "resolved"),
    Unique("audit_log_seq_key", "audit_log", ("seq",)),
    Unique("assignments_live", "assignments", ("node_id",), lambda row: row["state"] != "ended"),
    Unique("debts_open", "debts", ("target_ref",), lambda row: row["settled_us"] is None),
    Unique("attachments_rw_holder", "platform_storage_attachments", ("rw_holder",), state=True),
    Unique("meters_allocation_id_key", "meters", ("allocation_id",)),
)
