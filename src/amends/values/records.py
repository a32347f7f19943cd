"""The kernel's rows: one Struct per table and way of writing it, its table declared beside it (`values/tables.py`).

Everything that lists columns is made from these. A domain adds row types of its own (see `Domain`).
Times are microseconds since the Unix epoch, UTC. `details`, `metadata` and the like are JSON texts.
"""

from typing import Any, ClassVar

from msgspec import Struct

from amends.values.facets import Facet
from amends.values.tables import Live, Table

_STEP_END = Facet(
    name="step.end", wins="final", by="ended_us",
    columns=("state", "started_us", "ended_us", "code", "message", "epoch", "jseq"),
)  # fmt: skip
_RUN_SEQ = Facet(name="run.seq", columns=("jseq",), wins="final", by="ended_us")


class CommandRow(Struct):
    """One handled command: what its span is derived from."""

    table: ClassVar[Table] = Table(name="command", key=("trace_id", "span_id"), facets=(
        Facet(
            name="command",
            columns=("caller", "subject", "request_id", "parent_span_id", "entity", "http", "error_code", "received_us",
                "replied_us", "epoch", "link", "jseq"),
            by="http", gone_from=400,
        ),
    ))  # fmt: skip

    caller: str
    subject: str
    request_id: str
    trace_id: str
    span_id: str
    parent_span_id: str
    entity: str
    http: int
    error_code: str
    received_us: int
    replied_us: int
    epoch: int
    link: str = ""


class ReplyRow(Struct):
    """What a command was answered, kept for 7 days; unique by (caller, key)."""

    table: ClassVar[Table] = Table(name="command_reply", key=("trace_id", "span_id"), facets=(
        Facet(
            name="command.reply", fades=True,
            columns=("key", "body_hash", "reply"),
        ),
    ))  # fmt: skip

    caller: str
    key: str
    body_hash: str
    request_id: str
    trace_id: str
    span_id: str
    http: int
    reply: str
    received_us: int


class StepRow(Struct):
    """The intent of one try of one step (B8: committed before the step runs), or a try already ended."""

    table: ClassVar[Table] = Table(name="step", key=("step_id",), live=Live("state", is_in=("intended",)), facets=(
        Facet(
            name="step",
            columns=("entity", "name", "attempt", "idempotency_key", "target", "args", "undo", "trace_id",
                "parent_span_id", "next_attempt_us", "server_address", "server_port"),
        ),
        _STEP_END,
    ))  # fmt: skip

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

    table: ClassVar[Table] = Table(name="step", key=("step_id",), facets=(_STEP_END,))

    step_id: str
    state: str
    started_us: int
    ended_us: int
    code: str
    message: str
    epoch: int


class MessageRow(Struct):
    """A durable message to another actor; deleted by the turn that consumes it."""

    table: ClassVar[Table] = Table(name="message", key=("message_id",), live=Live(), facets=(
        Facet(
            name="message",
            columns=("to_kind", "to_id", "type", "body", "trace_id", "span_id", "actor", "request_id", "sent_us",
                "jseq"),
        ),
    ))  # fmt: skip

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

    table: ClassVar[Table] = Table(name="outbox", key=("outbox_id",), facets=(
        Facet(
            name="outbox",
            columns=("entity", "stream", "subject", "payload", "trace_id", "span_id", "created_us", "jseq"),
        ),
    ))  # fmt: skip

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

    table: ClassVar[Table] = Table(name="outbox", key=("outbox_id",),
        final={"state": ("published", "skipped")}, facets=(
        Facet(
            name="outbox.mark", wins="final", by="published_us",
            default=("pending", 0, None),
            columns=("state", "attempts", "published_us"),
        ),
    ))  # fmt: skip

    outbox_id: str
    state: str
    attempts: int
    published_us: int | None


class FailureRow(Struct):
    """`traces.md`: Failure."""

    table: ClassVar[Table] = Table(name="failure", key=("failure_id",), facets=(
        Facet(
            name="failure",
            columns=("trace_id", "span_id", "at_us", "failure_type", "severity", "ref", "message", "code", "component",
                "cause_ref", "propagation_hop", "recovery_trace_id", "epoch", "jseq"),
        ),
    ))  # fmt: skip

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

    table: ClassVar[Table] = Table(name="recovery_run", key=("recovery_id",), facets=(
        Facet(
            name="run",
            columns=("recovery_trace_id", "matrix_row", "matrix_version", "matrix_sha256", "policy_sha256",
                "started_us", "trigger_type", "trigger_ref", "original_trace_id", "original_span_id", "entity", "name",
                "epoch", "begun_jseq"),
        ),
        _RUN_SEQ,
    ))  # fmt: skip

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

    table: ClassVar[Table] = Table(name="recovery_run", key=("recovery_id",), facets=(
        Facet(
            name="run.end", wins="final", by="ended_us",
            default=(None, None, "{}"),
            columns=("final_outcome", "ended_us", "net"),
        ),
        _RUN_SEQ,
    ))  # fmt: skip

    recovery_id: str
    final_outcome: str
    ended_us: int | None
    net: str


class ActionRow(Struct):
    """`traces.md`: Recovery action."""

    table: ClassVar[Table] = Table(name="recovery_action", key=("action_id",), facets=(
        Facet(
            name="action",
            columns=("recovery_trace_id", "sequence", "at_us", "action_type", "what", "target_ref", "outcome",
                "duration_ms", "metadata", "operator", "epoch", "started_us", "jseq"),
        ),
    ))  # fmt: skip

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

    table: ClassVar[Table] = Table(name="compensation", key=("compensation_id",), facets=(
        Facet(
            name="compensation",
            columns=("action_id", "recovery_trace_id", "sequence", "at_us", "compensated_action_ref",
                "compensated_action_type", "compensation_type", "target_ref", "outcome", "duration_ms", "metadata",
                "matrix_row", "comp_key", "jseq"),
        ),
    ))  # fmt: skip

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

    table: ClassVar[Table] = Table(name="ops_case", key=("case_id",), facets=(
        Facet(
            name="case",
            columns=("kind", "target_ref", "entity", "opened_us", "commands"),
        ),
        Facet(
            name="case.state", wins="last",
            columns=("state", "resolved_us", "jseq"),
        ),
        Facet(
            name="case.trace", wins="last", default=("",), keeps=True,
            columns=("recovery_trace_id",),
        ),
        Facet(
            name="case.evidence", wins="last", default=("{}",), keeps=True,
            columns=("evidence",),
        ),
    ))  # fmt: skip

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

    table: ClassVar[Table] = Table(name="message_quarantine", key=("message_id",), facets=(
        Facet(
            name="quarantine",
            columns=("entity", "type", "body", "error", "at_us", "jseq"),
        ),
    ))  # fmt: skip

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

    table: ClassVar[Table] = Table(name="audit_log", key=("audit_id",), json=("details",))

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


# In the order in which a commit writes them.
ROWS: tuple[type[Struct], ...] = (
    CommandRow, ReplyRow, StepRow, StepEndRow, MessageRow, OutboxRow, OutboxMarkRow, FailureRow, RunRow, RunEndRow,
    ActionRow, CompensationRow, CaseRow, QuarantineRow, AuditRow,
)  # fmt: skip
