"""Which columns `qry.<entity>.list` may filter by: those that an index finds (migrations 0012 and 0013), and no others.

A question that no index answers would walk all of history, whoever asks it.
"""

from collections.abc import Collection, Mapping

from msgspec import Struct

from amends.values.errors import Rejected

NO_HISTORY: tuple[str, ...] = ()


class Filters(Struct, frozen=True):
    """`keys` find a few rows, `sets` a part of them in the order of ids; any other column may stand beside one.

    The empty set stands for a table that is as large as the fleet or as what waits for a person, and no history.
    """

    keys: tuple[str, ...]
    sets: tuple[tuple[str, ...], ...] = ()

    def allow(self, wanted: Collection[str]) -> bool:
        """Whether an index finds rows by these columns."""
        return not wanted or any(key in wanted for key in self.keys) or any(set(s) <= set(wanted) for s in self.sets)

    def words(self, mark: str = "") -> str:
        """For people: what may be filtered by; `mark` stands around each name."""
        if NO_HISTORY in self.sets:
            return "any column"
        ways = ((key,) for key in self.keys)
        named = [" with ".join(f"{mark}{name}{mark}" for name in way) for way in (*ways, *self.sets)]
        return f"{', '.join(named)}; beside one of these any column"


FILTERS: Mapping[str, Filters] = {
    "account": Filters(("account_id", "stripe_customer_id"), (NO_HISTORY,)),
    "node": Filters(("node_id",), (NO_HISTORY,)),
    "allocation": Filters(
        ("allocation_id", "node_id", "external_ref"),
        (("account_id",), ("account_id", "state"), ("state",), ("failure_code",), ("cleanup_pending",),
         ("account_id", "cleanup_pending")),
    ),
    "attachment": Filters(
        ("attachment_id", "allocation_id"), (("account_id",), ("namespace_id",), ("node_id",), ("state",))
    ),
    "namespace": Filters(("namespace_id",), (("account_id",),)),
    "provider_grant": Filters(("grant_id",), (("namespace_id",), ("state",))),
    "debt": Filters(("debt_id", "node_id", "allocation_id", "attachment_id", "target_ref"), (NO_HISTORY,)),
    "meter": Filters(("meter_id", "allocation_id"), (("account_id",), ("account_id", "state"), ("state",))),
    "ledger_entry": Filters(
        ("entry_id", "idempotency_key", "meter_id"), (("account_id",), ("account_id", "entry_type"))
    ),
    "payment": Filters(("payment_id",), (("account_id",), ("state",))),
    "stripe_event": Filters(("event_id", "payment_id"), (("state",),)),
    "notification": Filters(
        ("notification_id", "dedupe_key", "entity"),
        (("account_id",), ("account_id", "kind"), ("account_id", "state"), ("state",)),
    ),
    "outbox": Filters(("outbox_id", "entity"), (("state",),)),
    "step": Filters(("step_id", "entity"), (("state",),)),
    "failure": Filters(("failure_id", "recovery_trace_id", "trace_id"), (("code",),)),
    "recovery_run": Filters(
        ("recovery_id", "recovery_trace_id", "entity", "original_trace_id"),
        (("matrix_row",), ("final_outcome",), ("matrix_row", "final_outcome")),
    ),
    "recovery_action": Filters(("action_id", "recovery_trace_id")),
    "compensation": Filters(
        ("compensation_id", "recovery_trace_id", "target_ref", "comp_key", "action_id"), (("matrix_row",),)
    ),
    "audit_log": Filters(
        ("audit_id", "seq", "target_ref", "request_id", "recovery_trace_id"), (("actor",), ("action",))
    ),
    "ops_case": Filters(
        ("case_id", "target_ref", "entity", "recovery_trace_id"), (("kind",), ("state",))
    ),
}  # fmt: skip


def check_filters(entity: str, columns: Collection[str], wanted: Collection[str]) -> None:
    """Raise `Rejected` that names the field where no index finds rows by what is wanted."""
    for field in wanted:
        if field not in columns:
            raise Rejected("invalid_request", f"{entity} has no column {field!r}", field=field)
    filters = FILTERS.get(entity, Filters(()))
    if filters.allow(wanted):
        return
    known = {*filters.keys, *(name for one in filters.sets for name in one)}
    field = next((name for name in wanted if name not in known), next(iter(wanted)))
    raise Rejected(
        "invalid_request", f"{entity} cannot be listed by {' and '.join(sorted(wanted))}; it can by {filters.words()}",
        field=field, filters=sorted(known),
    )  # fmt: skip
