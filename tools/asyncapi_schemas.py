"""What tools/asyncapi.py cannot read off a type: headers, events, notifications, tasks, as literal JSON Schema.

tests/docs/test_asyncapi.py holds these to what the code really sends.
"""

from typing import Any, Final

from amends.runtime.requests import Endpoint

Json = dict[str, Any]

TEXT: Final[Json] = {"type": "string"}
MAYBE_TEXT: Final[Json] = {"type": ["string", "null"]}
WHOLE: Final[Json] = {"type": "integer"}
TRACE_ID: Final[Json] = {"type": "string", "pattern": "^[0-9a-f]{32}$"}

REPLY: Final = "`ok` true with `data`, or false with `error`; error replies carry Nats-Service-Error headers as well"

TRACEPARENT: Final[Json] = {"type": "string", "description": "W3C trace context; the trace goes on"}
BEARER: Final[Json] = {"type": "string", "pattern": "^Bearer ", "description": "the token of a caller or an operator"}
CHANGE: Final[Json] = {
    "Idempotency-Key": {
        "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[ -~]+$",
        "description": "one space of keys per caller; the same key and body replays the first reply",
    },
    "Expected-Version": {"type": "string", "pattern": "^[0-9]{1,18}$", "description": "409 if it is another"},
}  # fmt: skip
COMMON: Final[Json] = {"Authorization": BEARER, "traceparent": TRACEPARENT}


def _headers(properties: Json, *required: str) -> Json:
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})


HEADERS: Final[Json] = {
    "CallerChangeHeaders": _headers({**COMMON, **CHANGE}, "Idempotency-Key"),
    "OperatorChangeHeaders": _headers({**COMMON, **CHANGE}, "Authorization", "Idempotency-Key"),
    "CallerQuestionHeaders": _headers(COMMON),
    "OperatorQuestionHeaders": _headers(COMMON, "Authorization"),
}
TRACE: Final[Json] = _headers({"traceparent": TRACEPARENT}, "traceparent")
MESSAGE_ID: Final[Json] = _headers(
    {"Nats-Msg-Id": {**TEXT, "description": "event_id or notification_id"}, "traceparent": TRACEPARENT},
    "Nats-Msg-Id", "traceparent",
)  # fmt: skip


def headers_of(endpoint: Endpoint) -> str:
    """The name of the headers' schema of an endpoint."""
    who = "Operator" if endpoint.role in ("operator", "viewer") else "Caller"
    return f"{who}{'Question' if endpoint.answer is not None else 'Change'}Headers"


# qry.<entity>.list and ops.case.list: the view's columns as filters.
LIST: Final[Json] = {
    "type": "object",
    "properties": {
        "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
        "cursor": TEXT,
        "order": {
            "enum": ["oldest", "newest"],
            "default": "oldest",
            "description": "by id, which is the order of time",
        },
        "id_prefix": {**TEXT, "description": "rows whose id begins so"},
    },
    "additionalProperties": {"description": "a column of the view of that name: rows that equal it"},
}

EVENT: Final[Json] = {
    "schema": {"type": "string"},
    "event_id": {"type": "string", "pattern": "^evt_"},
    "seq": {**WHOLE, "description": "per entity, from 1"},
    "occurred_us": WHOLE,
    "entity": TEXT,
    "from": MAYBE_TEXT,
    "to": MAYBE_TEXT,
    "cause": TEXT,
    "trace_id": TRACE_ID,
    "recovery_trace_id": {"type": ["string", "null"]},
}


def event(kind: str, data: Json) -> Json:
    """An event of that kind of entity, whose `data` looks so: what is its own of its row, after the transition."""
    schema = {"type": "string", "pattern": rf"^{kind}\.[a-z_]+/[0-9]+$"}
    return {
        "type": "object", "required": [*EVENT, "data"], "properties": {**EVENT, "schema": schema, "data": data},
    }  # fmt: skip


# Events of actors that are no transition: kind → event names (`Decision.event`).
BESIDE: Final[dict[str, tuple[str, ...]]] = {"allocation": ("access_changed",), "account": ("ledger_posted",)}
OF_ANOTHER: Final = {"account": "ledger_entry"}  # kind → of what else the `data` of such an event may be a row
# Events of what is no actor: kind → event names (`Decision.announce`).
ANNOUNCED: Final[dict[str, tuple[str, ...]]] = {"audit": ("anchored",), "control_plane": ("degraded", "recovered")}

ANNOUNCED_DATA: Final[dict[str, Json]] = {
    "audit": {
        "type": "object",
        "required": ["audit_seq", "hash", "seq", "digest", "signature"],
        "properties": {
            "audit_seq": WHOLE,
            "hash": TEXT,
            "audit_hash": TEXT,
            "seq": WHOLE,
            "digest": TEXT,
            "epoch": WHOLE,
            "at_us": WHOLE,
            "key": TEXT,
            "signature": TEXT,
        },
    },
    "control_plane": {
        "type": "object",
        "properties": {
            "stream": TEXT,
            "age_us": WHOLE,
            "offset_us": WHOLE,
            "peer": TEXT,
            "domain": TEXT,
            "silent": WHOLE,
            "nodes": WHOLE,
        },
        "description": "a lagging stream's name and the age of its oldest event; how far a clock is off, and whose; "
        "of a held failure domain, how many nodes of how many are silent",
    },
}

ACCESS: Final[Json] = {
    "type": "object",
    "required": ["user", "host", "port", "host_key", "fingerprint"],
    "properties": {"user": TEXT, "host": TEXT, "port": WHOLE, "host_key": TEXT, "fingerprint": TEXT},
}

AUDIENCES: Final = {"account": "ntf.account.{account_id}.{kind}", "ops": "ntf.ops.ops.{kind}"}
NOTIFICATIONS: Final[dict[str, tuple[str, ...]]] = {
    "account": (
        "allocation.active",
        "allocation.failed",
        "allocation.released",
        "attachment.detach_failed",
        "attachment.failed",
    ),
    "ops": ("case.opened", "node.offline", "node.quarantined"),
}
NOTIFICATION: Final[Json] = {
    "type": "object",
    "required": ["kind", "notification_id", "entity", "occurred_us"],
    "properties": {
        "kind": {"enum": [kind for kinds in NOTIFICATIONS.values() for kind in kinds]},
        "notification_id": {"type": "string", "pattern": "^ntf_"},
        "account_id": TEXT,
        "entity": TEXT,
        "occurred_us": WHOLE,
        "state": TEXT,
        "cause": TEXT,
        "failure_code": TEXT,
        "access": ACCESS,
        "stopped_us": WHOLE,
        "debited_minor": WHOLE,
        "credited_minor": WHOLE,
        "currency": TEXT,
        "rule_id": TEXT,
        "recovery_trace_id": TRACE_ID,
        "case_id": TEXT,
        "late": {"type": "boolean"},
    },
}

_NAMES: Final[Json] = {"type": "array", "items": TEXT}
_OF_ALL_TASKS: Final[Json] = {
    "task_id": {"type": "string", "pattern": "^task_"},
    "node_epoch": WHOLE,
    "runtime_epoch": WHOLE,
    "ttl_ms": {**WHOLE, "description": "counted by the agent from its first receipt"},
    "deadline_us": {**WHOLE, "description": "for people"},
    "proto": {**WHOLE, "description": "2; a task without it is of 1"},
}


def _task(ops: tuple[str, ...], properties: Json, *required: str) -> Json:
    needed = ["task_id", "op", "node_epoch", "runtime_epoch", "deadline_us", *required]
    return {"type": "object", "required": needed, "properties": {**_OF_ALL_TASKS, "op": {"enum": [*ops]}, **properties}}


RECONCILE_TASK: Final[Json] = _task(
    ("reconcile",),
    {
        "expected": {
            "type": "object", "required": ["mounts", "users"], "properties": {"mounts": _NAMES, "users": _NAMES},
        },
        "report_only": {"type": "boolean", "description": "nothing is taken away: after a restore of the database"},
    },
    "expected",
)  # fmt: skip
_SOURCE: Final[Json] = {
    "oneOf": [
        {
            "type": "object", "required": ["type", "server", "export"],
            "properties": {"type": {"const": "nfs"}, "server": TEXT, "export": TEXT,
                           "options": TEXT},
        },
        {"type": "object", "required": ["type", "path"], "properties": {"type": {"const": "bind"}, "path": TEXT}},
    ],
    "description": "as the grant said",
}  # fmt: skip
_OF_MOUNTS: Final = ("attachment_id", "attempt_id", "namespace_id", "mode", "mount_path", "source")
MOUNT_TASK: Final[Json] = _task(
    ("mount", "probe_mount", "unmount"),
    dict.fromkeys(_OF_MOUNTS, TEXT) | {"mode": {"enum": ["ro", "rw"]}, "source": _SOURCE},
    *_OF_MOUNTS,
)
INVENTORY_TASK: Final[Json] = _task(("inventory",), {})
TASK: Final[Json] = {"oneOf": [RECONCILE_TASK, INVENTORY_TASK, MOUNT_TASK]}
