"""What each subject answers: the JSON Schema of a reply's `data`, from declared commands, views, and one table.

Knows no transport. A subject that stands in no table answers an object of its own, which says nothing more.
"""

from collections.abc import Mapping
from typing import Any, Final

from amends.domain.api import Request
from amends.runtime.requests import Endpoint

Schema = dict[str, Any]
Columns = Mapping[str, Mapping[str, str]]  # entity → column → the database's type

_TYPES: Final = {
    "bigint": "integer", "integer": "integer", "smallint": "integer", "boolean": "boolean", "text": "string",
}  # fmt: skip
_OBJECT: Final[Schema] = {"type": "object"}
_MAYBE_TEXT: Final[Schema] = {"type": ["string", "null"]}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}

_EXPLAINED: Final[Mapping[str, Schema]] = {
    "meter": {"type": ["object", "null"]}, "what": {"type": "string"},
    "formula": {"type": "array", "items": {"type": "string"}}, "reckoned_minor": {"type": ["integer", "null"]},
    "agrees": {"type": ["boolean", "null"]}, "evaluation": {"type": ["object", "null"]},
    "rule": {"type": ["object", "null"]}, "policy": {"type": ["object", "null"]}, "traces": _OBJECT,
    "payment": {"type": ["object", "null"]}, "minor_unit_exponent": {"type": ["integer", "null"]},
    "problem": {"type": "string"},
}  # fmt: skip

_FORECAST: Final[Schema] = {
    "as_of_us": {"type": "integer"}, "assumptions": {"type": "array", "items": {"type": "string"}},
    "refused": {"type": ["object", "null"]}, "reply": _OBJECT,
    **{name: {"type": "array", "items": _OBJECT} for name in (
        "transitions", "failures", "compensations", "runs", "ledger", "accounts", "notifications", "cases", "steps",
        "waiting", "held",
    )},
    "took_us": _COUNT,
}  # fmt: skip

# Subjects that answer something else than rows.
_OTHERS: Final[Mapping[str, Schema]] = {
    "ingress.stripe": {"duplicate": {"type": "boolean"}},
    "ops.tree.show": {"tree": _OBJECT},
    "ops.matrix.show": {"version": {"type": "string"}, "sha256": {"type": "string"}, "rows": {"type": "array"}},
    "ops.audit.verify": {
        "valid": {"type": "boolean"}, "entries": _COUNT, "head_hash": {"type": "string"},
        "first_bad_seq": {"type": ["integer", "null"]}, "problem": {"type": "string"},
    },
    "ops.policy.show": {
        "version": _MAYBE_TEXT, "sha256": {"type": "string"}, "in_force": {"type": "boolean"}, "currency": _MAYBE_TEXT,
        "rules": {"type": "array"}, "toml": {"type": "string"}, "problem": {"type": "string"},
    },
    "ops.policy.evaluate": {
        "posted": _COUNT, "final": _COUNT, "minimum": _COUNT, "overrun": _COUNT, "policy_credit": _COUNT,
        "net": {"type": "integer"}, "rule_id": {"type": "string"}, "policy_version": {"type": "string"},
        "policy_sha256": {"type": "string"},
    },
    "ops.ledger.verify": {
        "checked": _OBJECT, "wrong": {"type": "array"}, "wrong_count": _COUNT, "cursor": _MAYBE_TEXT,
    },
    "ops.policy.backtest": {
        "policy_version": {"type": "string"}, "policy_sha256": {"type": "string"}, "meters": _COUNT,
        "charged_minor": _COUNT, "credited_minor": _COUNT, "would_charge_minor": _COUNT, "would_credit_minor": _COUNT,
        "not_comparable": _COUNT, "rules": _OBJECT, "changes": {"type": "array"}, "cursor": _MAYBE_TEXT,
    },
    "ops.trace.verify": {
        "valid": {"type": "boolean"}, "compensations": _COUNT, "spans": _COUNT, "differences": {"type": "array"},
    },
    **{f"ops.whatif.{name}": _FORECAST for name in ("node_loss", "force_release", "node_retire", "command")},
    "ops.trace.export": {"traces": _OBJECT, "recoveries": _COUNT, "truncated": {"type": "boolean"}},
}  # fmt: skip


def row(columns: Mapping[str, str]) -> Schema:
    """The schema of a view's row; every column may be null."""
    properties = {
        name: {"type": [_TYPES[kind], "null"]} if kind in _TYPES else {} for name, kind in columns.items()
    }  # fmt: skip
    return {"type": "object", "required": list(columns), "properties": properties}


def data_schema(endpoint: Endpoint, columns: Columns) -> Schema:
    """The schema of `data` in an ok reply of that subject."""
    subject, request = endpoint.subject, endpoint.request
    command = request.command if isinstance(request, type) and issubclass(request, Request) else None
    family, _, rest = subject.partition(".")
    entity, _, verb = rest.rpartition(".")
    if family == "qry" and entity in columns and verb in ("get", "list"):
        return row(columns[entity]) if verb == "get" else _page(columns[entity])
    if subject == "qry.ledger_entry.explain":
        return _properties({"entry": row(columns["ledger_entry"]), **_EXPLAINED}, ["entry"])
    if subject == "ops.case.list":
        return _page(columns["ops_case"])
    if subject == "ops.case.show":
        return _properties({"case": row(columns["ops_case"]), "runbook": {"type": "string"}}, ["case", "runbook"])
    if subject == "qry.account.statement":
        entries = {"type": "array", "items": row(columns["ledger_entry"])}
        own = {
            "entries": entries, "balance_minor": {"type": "integer"}, "currency": {"type": "string"},
            "opening_minor": {"type": "integer"}, "minor_unit_exponent": {"type": ["integer", "null"]},
            "cursor": _MAYBE_TEXT,
        }  # fmt: skip
        return _properties(own, ["entries", "balance_minor"])
    if command is not None:
        name, beside = command.shown, dict(command.answer)
        return _properties({name: row(columns[name]), **beside} if name else beside, [name] if name else [])
    return _properties(_OTHERS.get(subject, {}), [])


def _page(columns: Mapping[str, str]) -> Schema:
    items = {"type": "array", "items": row(columns)}
    return _properties({"items": items, "cursor": {"type": ["string", "null"]}}, ["items", "cursor"])


def _properties(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "required": required, "properties": properties}
