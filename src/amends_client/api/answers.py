"""What questions and commands answer that is no row, and the objects that requests have.

Written by `python -m tools.client`: change the tables that it reads, not this file.
"""

from typing import Any, Literal

from msgspec import Struct

from amends_client.api.rows import LedgerEntry, OpsCase


class PaymentAssignAnswer(Struct, frozen=True):
    """What `ops.payment.assign` answers."""

    payment_id: str | None = None
    account_id: str | None = None
    state: str | None = None


class SshAddress(Struct, frozen=True, omit_defaults=True):
    """An object in a request: SshAddress."""

    host: str
    port: int
    host_key: str
    user: str | None = None


class BillingPostWindowAnswer(Struct, frozen=True):
    """What `ops.billing.post_window` answers."""

    ledger_key: str | None = None
    amount_minor: int | None = None
    duplicate: bool | None = None


class DetectorConfirmAnswer(Struct, frozen=True):
    """What `ops.detector.confirm` answers."""

    confirmed: int | None = None
    nodes: list[str] | None = None


class OutboxAnswer(Struct, frozen=True):
    """What `ops.outbox.…` answers."""

    outbox_id: str | None = None
    state: Literal["pending", "skipped"] | None = None


class StreamsCreateAnswer(Struct, frozen=True):
    """What `ops.streams.create` answers."""

    accepted: bool | None = None


class OutboxRepublishAnswer(Struct, frozen=True):
    """What `ops.outbox.republish` answers."""

    accepted: bool | None = None
    complete: bool | None = None
    stored: int | None = None
    duplicate: int | None = None
    refused: int | None = None
    code: str | None = None


class TreeShowAnswer(Struct, frozen=True):
    """What `ops.tree.show` answers."""

    tree: dict[str, Any] | None = None


class MatrixShowAnswer(Struct, frozen=True):
    """What `ops.matrix.show` answers."""

    version: str | None = None
    sha256: str | None = None
    rows: list[Any] | None = None


class AuditVerifyAnswer(Struct, frozen=True):
    """What `ops.audit.verify` answers."""

    valid: bool | None = None
    entries: int | None = None
    head_hash: str | None = None
    first_bad_seq: int | None = None
    problem: str | None = None


class CaseShowAnswer(Struct, frozen=True):
    """What `ops.case.show` answers."""

    case: OpsCase
    runbook: str


class PolicyShowAnswer(Struct, frozen=True):
    """What `ops.policy.show` answers."""

    version: str | None = None
    sha256: str | None = None
    in_force: bool | None = None
    currency: str | None = None
    rules: list[Any] | None = None
    toml: str | None = None
    problem: str | None = None


class PolicyEvaluateAnswer(Struct, frozen=True):
    """What `ops.policy.evaluate` answers."""

    posted: int | None = None
    final: int | None = None
    minimum: int | None = None
    overrun: int | None = None
    policy_credit: int | None = None
    net: int | None = None
    rule_id: str | None = None
    policy_version: str | None = None
    policy_sha256: str | None = None


class LedgerEntryExplainAnswer(Struct, frozen=True):
    """What `qry.ledger_entry.explain` answers."""

    entry: LedgerEntry
    meter: dict[str, Any] | None = None
    what: str | None = None
    formula: list[str] | None = None
    reckoned_minor: int | None = None
    agrees: bool | None = None
    evaluation: dict[str, Any] | None = None
    rule: dict[str, Any] | None = None
    policy: dict[str, Any] | None = None
    traces: dict[str, Any] | None = None
    payment: dict[str, Any] | None = None
    minor_unit_exponent: int | None = None
    problem: str | None = None


class TraceVerifyAnswer(Struct, frozen=True):
    """What `ops.trace.verify` answers."""

    valid: bool | None = None
    compensations: int | None = None
    spans: int | None = None
    differences: list[Any] | None = None


class TraceExportAnswer(Struct, frozen=True):
    """What `ops.trace.export` answers."""

    traces: dict[str, Any] | None = None
    recoveries: int | None = None
    truncated: bool | None = None


class AccountStatementAnswer(Struct, frozen=True):
    """What `qry.account.statement` answers."""

    entries: list[LedgerEntry]
    balance_minor: int
    currency: str | None = None
    opening_minor: int | None = None
    minor_unit_exponent: int | None = None
    cursor: str | None = None


class LedgerVerifyAnswer(Struct, frozen=True):
    """What `ops.ledger.verify` answers."""

    checked: dict[str, Any] | None = None
    wrong: list[Any] | None = None
    wrong_count: int | None = None
    cursor: str | None = None


class PolicyBacktestAnswer(Struct, frozen=True):
    """What `ops.policy.backtest` answers."""

    policy_version: str | None = None
    policy_sha256: str | None = None
    meters: int | None = None
    charged_minor: int | None = None
    credited_minor: int | None = None
    would_charge_minor: int | None = None
    would_credit_minor: int | None = None
    not_comparable: int | None = None
    rules: dict[str, Any] | None = None
    changes: list[Any] | None = None
    cursor: str | None = None


class WhatifAnswer(Struct, frozen=True):
    """What `ops.whatif.…` answers."""

    as_of_us: int | None = None
    assumptions: list[str] | None = None
    refused: dict[str, Any] | None = None
    reply: dict[str, Any] | None = None
    transitions: list[dict[str, Any]] | None = None
    failures: list[dict[str, Any]] | None = None
    compensations: list[dict[str, Any]] | None = None
    runs: list[dict[str, Any]] | None = None
    ledger: list[dict[str, Any]] | None = None
    accounts: list[dict[str, Any]] | None = None
    notifications: list[dict[str, Any]] | None = None
    cases: list[dict[str, Any]] | None = None
    steps: list[dict[str, Any]] | None = None
    waiting: list[dict[str, Any]] | None = None
    held: list[dict[str, Any]] | None = None
    took_us: int | None = None
