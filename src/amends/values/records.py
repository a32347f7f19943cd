"""The kernel's rows: one Struct per table, fields in the order of that table's write statement.

`TABLES` names for each row type the statement that writes it. A domain adds row types of its own (see `Domain`).
Times are microseconds since the Unix epoch, UTC. `details`, `metadata` and the like are JSON texts.
"""

from typing import Any

from msgspec import Struct


class CommandRow(Struct):
    """One handled command and its kept reply; unique by (caller, key)."""

    caller: str
    key: str
    body_hash: str
    subject: str
    request_id: str
    trace_id: str
    span_id: str
    parent_span_id: str
    entity: str
    http: int
    error_code: str
    reply: str
    received_us: int
    replied_us: int
    epoch: int
    link: str = ""


class StepRow(Struct):
    """The intent of one try of one step (B8: committed before the step runs), or a try already ended."""

    step_id: str
    entity: str
    name: str
    attempt: int
    state: str
    idempotency_key: str
    target: str
    args: str
    undo: str
    trace_id: str
    parent_span_id: str
    started_us: int
    ended_us: int | None
    next_attempt_us: int | None
    code: str
    message: str
    epoch: int
    server_address: str = ""  # where its target was reached when it was intended, if that is known
    server_port: int = 0


class StepEndRow(Struct):
    """The outcome of a try."""

    step_id: str
    state: str
    started_us: int
    ended_us: int
    code: str
    message: str
    epoch: int


class MessageRow(Struct):
    """A durable message to another actor; deleted by the turn that consumes it."""

    message_id: str
    to_kind: str
    to_id: str
    type: str
    body: str
    trace_id: str
    span_id: str
    actor: str
    request_id: str
    sent_us: int


class OutboxRow(Struct):
    """An event still to be published; `outbox_id` is also its `Nats-Msg-Id`."""

    outbox_id: str
    entity: str
    stream: str
    subject: str
    payload: str
    trace_id: str
    span_id: str
    created_us: int


class OutboxMarkRow(Struct):
    """What publishing an outbox row came to."""

    outbox_id: str
    state: str
    attempts: int
    published_us: int | None


class FailureRow(Struct):
    """`traces.md`: Failure."""

    failure_id: str
    trace_id: str
    span_id: str
    at_us: int
    failure_type: str
    severity: str
    ref: str
    message: str
    code: str
    component: str
    cause_ref: str
    propagation_hop: int
    recovery_trace_id: str
    epoch: int


class RunRow(Struct):
    """`traces.md`: Recovery run, as it begins."""

    recovery_id: str
    recovery_trace_id: str
    matrix_row: str
    matrix_version: str
    matrix_sha256: str
    policy_sha256: str
    started_us: int
    trigger_type: str
    trigger_ref: str
    original_trace_id: str
    original_span_id: str
    entity: str
    name: str
    epoch: int


class RunEndRow(Struct):
    """A run's outcome; `degraded` is no end, so its `ended_us` stays null."""

    recovery_id: str
    final_outcome: str
    ended_us: int | None
    net: str


class ActionRow(Struct):
    """`traces.md`: Recovery action."""

    action_id: str
    recovery_trace_id: str
    sequence: int
    at_us: int
    action_type: str
    what: str
    target_ref: str
    outcome: str
    duration_ms: int | None
    metadata: str
    operator: str
    epoch: int
    started_us: int  # when its work began; it ends with the record


class CompensationRow(Struct):
    """`traces.md`: Compensation; append-only, unique by `comp_key`."""

    compensation_id: str
    action_id: str
    recovery_trace_id: str
    sequence: int
    at_us: int
    compensated_action_ref: str
    compensated_action_type: str
    compensation_type: str
    target_ref: str
    outcome: str
    duration_ms: int | None
    metadata: str
    matrix_row: str
    comp_key: str


class CaseRow(Struct):
    """An operator case as it now stands."""

    case_id: str
    kind: str
    target_ref: str
    entity: str
    state: str
    opened_us: int
    resolved_us: int | None
    recovery_trace_id: str
    commands: str
    evidence: str


class QuarantineRow(Struct):
    """A message that an actor could not digest, set aside with its error."""

    message_id: str
    entity: str
    type: str
    body: str
    error: str
    at_us: int


class AuditDraft(Struct):
    """An audit entry before the journal gives it its place in the chain."""

    audit_id: str
    at_us: int
    actor: str
    action: str
    target_ref: str
    from_state: str | None
    to_state: str | None
    reason: str
    request_id: str
    trace_id: str
    recovery_trace_id: str
    epoch: int
    details: dict[str, Any]


class AuditRow(Struct):
    """An audit entry in the chain (`tables.md`, audit_log)."""

    audit_id: str
    seq: int
    at_us: int
    actor: str
    action: str
    target_ref: str
    from_state: str | None
    to_state: str | None
    reason: str
    request_id: str
    trace_id: str
    recovery_trace_id: str
    epoch: int
    details: str
    prev_hash: str
    hash: str


# Row type → the name of the statement that writes it, in the order in which a commit writes them.
TABLES: dict[type[Struct], str] = {
    CommandRow: "write_command",
    StepRow: "write_step",
    StepEndRow: "write_step_end",
    MessageRow: "write_message",
    OutboxRow: "write_outbox",
    OutboxMarkRow: "write_outbox_mark",
    FailureRow: "write_failure",
    RunRow: "write_recovery_run",
    RunEndRow: "write_recovery_run_end",
    ActionRow: "write_recovery_action",
    CompensationRow: "write_compensation",
    CaseRow: "write_ops_case",
    QuarantineRow: "write_message_quarantine",
    AuditRow: "write_audit_log",
}
