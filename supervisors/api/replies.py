"""What each subject answers: the JSON Schema of a reply's `data`, from the columns of the views and one table.

Knows no transport. A subject that stands in no table answers an object of its own, which says nothing more.
"""

from collections.abc import Mapping
from typing import Any, Final

Schema = dict[str, Any]
Columns = Mapping[str, Mapping[str, str]]  # entity → column → the database's type

_TYPES: Final = {
    "bigint": "integer", "integer": "integer", "smallint": "integer", "boolean": "boolean", "text": "string",
}  # fmt: skip
_OBJECT: Final[Schema] = {"type": "object"}
_ACCEPTED: Final[Schema] = {"accepted": {"type": "boolean"}}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_SETTLED: Final[Schema] = {"outbox_id": {"type": "string"}, "state": {"enum": ["pending", "skipped"]}}

# Subject → the entity under whose name the reply has its row, and what stands beside it.
_COMMANDS: Final[Mapping[str, tuple[str, Schema]]] = {
    "cmd.account.create": ("account", {}),
    "cmd.node.register": ("node", {}),
    "cmd.allocation.request": ("allocation", {}),
    "cmd.allocation.release": (
        "allocation", {"accepted_us": {"type": "integer"}, "already_terminal": {"type": "boolean"}},
    ),
    "ops.cleanup.retry": ("allocation", {}),
    **{f"ops.node.{verb}": ("node", {}) for verb in (
        "update", "drain", "undrain", "quarantine", "return_to_service", "retire")},
    "ops.notification.redispatch": ("notification", {}),
    "ops.notification.cancel": ("notification", {}),
    "ops.case.resolve": ("ops_case", {}),
    "ops.case.acknowledge": ("ops_case", {}),
}  # fmt: skip

# Subjects that answer something else than rows.
_OTHERS: Final[Mapping[str, Schema]] = {
    "ops.outbox.redispatch": _SETTLED,
    "ops.outbox.skip": _SETTLED,
    "ops.streams.create": _ACCEPTED,
    "ops.outbox.republish": {
        **_ACCEPTED, "complete": {"type": "boolean"}, "stored": _COUNT, "duplicate": _COUNT, "refused": _COUNT,
        "code": {"type": "string"},
    },
    "ops.tree.show": {"tree": _OBJECT},
    "ops.matrix.show": {"version": {"type": "string"}, "sha256": {"type": "string"}, "rows": {"type": "array"}},
    "ops.audit.verify": {
        "valid": {"type": "boolean"}, "entries": _COUNT, "head_hash": {"type": "string"},
        "first_bad_seq": {"type": ["integer", "null"]}, "problem": {"type": "string"},
    },
    "ops.trace.verify": {
        "valid": {"type": "boolean"}, "compensations": _COUNT, "spans": _COUNT, "differences": {"type": "array"},
    },
    "ops.trace.export": {"traces": _OBJECT, "recoveries": _COUNT, "truncated": {"type": "boolean"}},
}  # fmt: skip


def row(columns: Mapping[str, str]) -> Schema:
    """The schema of a view's row; every column may be null."""
    properties = {
        name: {"type": [_TYPES[kind], "null"]} if kind in _TYPES else {} for name, kind in columns.items()
    }  # fmt: skip
    return {"type": "object", "required": list(columns), "properties": properties}


def data_schema(subject: str, columns: Columns) -> Schema:
    """The schema of `data` in an ok reply of that subject."""
    family, _, rest = subject.partition(".")
    entity, _, verb = rest.rpartition(".")
    if family == "qry" and entity in columns and verb in ("get", "list"):
        return row(columns[entity]) if verb == "get" else _page(columns[entity])
    if subject == "ops.case.list":
        return _page(columns["ops_case"])
    if subject == "ops.case.show":
        return _properties({"case": row(columns["ops_case"]), "runbook": {"type": "string"}}, ["case", "runbook"])
    if subject == "qry.account.statement":
        entries = {"type": "array", "items": row(columns["ledger_entry"])}
        own = {"entries": entries, "balance_minor": {"type": "integer"}, "currency": {"type": "string"}}
        return _properties(own, ["entries", "balance_minor"])
    if subject in _COMMANDS:
        name, beside = _COMMANDS[subject]
        return _properties({name: row(columns[name]), **beside}, [name])
    return _properties(_OTHERS.get(subject, {}), [])


def _page(columns: Mapping[str, str]) -> Schema:
    items = {"type": "array", "items": row(columns)}
    return _properties({"items": items, "cursor": {"type": ["string", "null"]}}, ["items", "cursor"])


def _properties(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "required": required, "properties": properties}
