"""The rows of every entity, as the reference's views have them; times (`_us`) are microseconds.

Written by `python -m tools.client`: change the tables that it reads, not this file.
"""

from typing import Any

from msgspec import Struct


class Access(Struct, frozen=True):
    """How a customer gets in; `host_key` is the line to expect."""

    user: str
    host: str
    port: int
    host_key: str
    fingerprint: str


class Account(Struct, frozen=True):
    """A row of `account`. What other turns write is null in the reply to a command."""

    account_id: str
    state: str
    currency: str | None = None
    stripe_customer_id: str | None = None
    created_us: int | None = None
    version: int | None = None


class Node(Struct, frozen=True):
    """A row of `node`. What other turns write is null in the reply to a command."""

    node_id: str
    state: str
    labels: dict[str, str] | None = None
    dirty: bool | None = None
    reserved_by: str | None = None
    allocated_to: str | None = None
    epoch: int | None = None
    boot_id: str | None = None
    last_heartbeat_us: int | None = None
    flap_count: int | None = None
    quarantine_reasons: list[str] | None = None
    version: int | None = None


class Allocation(Struct, frozen=True):
    """A row of `allocation`. What other turns write is null in the reply to a command."""

    allocation_id: str
    state: str
    account_id: str | None = None
    node_id: str | None = None
    failure_code: str | None = None
    release_cause: str | None = None
    cleanup_pending: bool | None = None
    cleanup_attempts: int | None = None
    billing_state: str | None = None
    rate_uminor_per_hour: int | None = None
    attempt_id: str | None = None
    external_ref: str | None = None
    access: Access | None = None
    requested_us: int | None = None
    activated_us: int | None = None
    ended_us: int | None = None
    trace_id: str | None = None
    version: int | None = None


class Attachment(Struct, frozen=True):
    """A row of `attachment`. What other turns write is null in the reply to a command."""

    attachment_id: str
    state: str
    allocation_id: str | None = None
    namespace_id: str | None = None
    node_id: str | None = None
    mode: str | None = None
    mount_path: str | None = None
    reason: str | None = None
    attempt_id: str | None = None
    grant_id: str | None = None
    trace_id: str | None = None
    version: int | None = None
    account_id: str | None = None


class Namespace(Struct, frozen=True):
    """A row of `namespace`. What other turns write is null in the reply to a command."""

    namespace_id: str
    state: str
    account_id: str | None = None
    provider_id: str | None = None
    quota_bytes: int | None = None
    used_bytes: int | None = None
    rw_blocked: bool | None = None
    quota_flag: str | None = None
    drift: Any = None
    version: int | None = None


class ProviderGrant(Struct, frozen=True):
    """A row of `provider_grant`. What other turns write is null in the reply to a command."""

    grant_id: str
    state: str
    namespace_id: str | None = None
    node_id: str | None = None
    provider_id: str | None = None
    mode: str | None = None


class Debt(Struct, frozen=True):
    """A row of `debt`. What other turns write is null in the reply to a command."""

    debt_id: str
    node_id: str | None = None
    kind: str | None = None
    target_ref: str | None = None
    allocation_id: str | None = None
    attachment_id: str | None = None
    attempts: int | None = None
    since_us: int | None = None


class Meter(Struct, frozen=True):
    """A row of `meter`. What other turns write is null in the reply to a command."""

    meter_id: str
    state: str
    allocation_id: str | None = None
    account_id: str | None = None
    rate_uminor_per_hour: int | None = None
    policy_version: str | None = None
    policy_sha256: str | None = None
    started_us: int | None = None
    stopped_us: int | None = None
    stop_cause: str | None = None
    posted_through_us: int | None = None


class LedgerEntry(Struct, frozen=True):
    """A row of `ledger_entry`. What other turns write is null in the reply to a command."""

    entry_id: str
    account_id: str | None = None
    meter_id: str | None = None
    entry_type: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    idempotency_key: str | None = None
    payload_hash: str | None = None
    rule_id: str | None = None
    window_start_us: int | None = None
    created_us: int | None = None


class Payment(Struct, frozen=True):
    """A row of `payment`. What other turns write is null in the reply to a command."""

    payment_id: str
    state: str
    account_id: str | None = None
    currency: str | None = None
    amount_minor: int | None = None
    since_us: int | None = None
    waiting: Any = None
    booked: Any = None
    version: int | None = None


class StripeEvent(Struct, frozen=True):
    """A row of `stripe_event`. What other turns write is null in the reply to a command."""

    event_id: str
    state: str
    type: str | None = None
    account_id: str | None = None
    received_us: int | None = None
    payment_id: str | None = None


class Notification(Struct, frozen=True):
    """A row of `notification`. What other turns write is null in the reply to a command."""

    notification_id: str
    state: str
    audience: str | None = None
    account_id: str | None = None
    kind: str | None = None
    entity: str | None = None
    attempts: int | None = None
    dedupe_key: str | None = None
    created_us: int | None = None
    sent_us: int | None = None
    version: int | None = None


class Outbox(Struct, frozen=True):
    """A row of `outbox`. What other turns write is null in the reply to a command."""

    outbox_id: str
    state: str
    entity: str | None = None
    subject: str | None = None
    attempts: int | None = None
    created_us: int | None = None
    published_us: int | None = None
    stream: str | None = None
    trace_id: str | None = None


class Step(Struct, frozen=True):
    """A row of `step`. What other turns write is null in the reply to a command."""

    step_id: str
    state: str
    entity: str | None = None
    name: str | None = None
    attempt: int | None = None
    idempotency_key: str | None = None
    started_us: int | None = None
    ended_us: int | None = None
    next_attempt_us: int | None = None
    target: str | None = None
    code: str | None = None
    message: str | None = None
    trace_id: str | None = None
    span_id: str | None = None


class Failure(Struct, frozen=True):
    """A row of `failure`. What other turns write is null in the reply to a command."""

    failure_id: str
    trace_id: str | None = None
    span_id: str | None = None
    timestamp: str | None = None
    failure_type: str | None = None
    severity: str | None = None
    ref: str | None = None
    message: str | None = None
    code: str | None = None
    component: str | None = None
    cause_ref: str | None = None
    propagation_hop: int | None = None
    recovery_trace_id: str | None = None
    at_us: int | None = None


class RecoveryRun(Struct, frozen=True):
    """A row of `recovery_run`. What other turns write is null in the reply to a command."""

    recovery_id: str
    recovery_trace_id: str | None = None
    matrix_row: str | None = None
    matrix_version: str | None = None
    matrix_sha256: str | None = None
    policy_sha256: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    trigger_type: str | None = None
    trigger_ref: str | None = None
    original_trace_id: str | None = None
    final_outcome: str | None = None
    entity: str | None = None
    name: str | None = None
    net: Any = None
    original_span_id: str | None = None
    started_us: int | None = None
    ended_us: int | None = None


class RecoveryAction(Struct, frozen=True):
    """A row of `recovery_action`. What other turns write is null in the reply to a command."""

    action_id: str
    recovery_trace_id: str | None = None
    sequence: int | None = None
    timestamp: str | None = None
    action_type: str | None = None
    target_ref: str | None = None
    outcome: str | None = None
    duration_ms: int | None = None
    metadata: Any = None
    what: str | None = None
    operator: str | None = None
    at_us: int | None = None


class Compensation(Struct, frozen=True):
    """A row of `compensation`. What other turns write is null in the reply to a command."""

    compensation_id: str
    recovery_trace_id: str | None = None
    sequence: int | None = None
    timestamp: str | None = None
    compensated_action_ref: str | None = None
    compensated_action_type: str | None = None
    compensation_type: str | None = None
    target_ref: str | None = None
    outcome: str | None = None
    duration_ms: int | None = None
    metadata: Any = None
    matrix_row: str | None = None
    comp_key: str | None = None
    action_id: str | None = None
    at_us: int | None = None


class AuditLog(Struct, frozen=True):
    """A row of `audit_log`. What other turns write is null in the reply to a command."""

    audit_id: str
    seq: int | None = None
    at_us: int | None = None
    actor: str | None = None
    action: str | None = None
    target_ref: str | None = None
    from_state: str | None = None
    to_state: str | None = None
    reason: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    recovery_trace_id: str | None = None
    epoch: int | None = None
    details: Any = None
    prev_hash: str | None = None
    hash: str | None = None


class OpsCase(Struct, frozen=True):
    """A row of `ops_case`. What other turns write is null in the reply to a command."""

    case_id: str
    state: str
    kind: str | None = None
    target_ref: str | None = None
    opened_us: int | None = None
    resolved_us: int | None = None
    recovery_trace_id: str | None = None
    commands: Any = None
    evidence: Any = None
    entity: str | None = None
