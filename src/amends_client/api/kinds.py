"""Kinds of entities: their rows, the column of their id, and which state may follow which.

Written by `python -m tools.client`: change the tables that it reads, not this file.
"""

from typing import Final, Literal

from amends_client.api.rows import (
    Account,
    Allocation,
    Attachment,
    AuditLog,
    Compensation,
    Debt,
    Failure,
    LedgerEntry,
    Meter,
    Namespace,
    Node,
    Notification,
    OpsCase,
    Outbox,
    Payment,
    ProviderGrant,
    RecoveryAction,
    RecoveryRun,
    Step,
    StripeEvent,
)
from amends_client.reading import Kind

AccountState = Literal["open"]
ACCOUNT: Final = Kind("account", Account, "account_id", {"open": ()})
NodeState = Literal["registered", "ready", "suspect", "draining", "quarantined", "offline", "retired"]
NODE: Final = Kind(
    "node",
    Node,
    "node_id",
    {
        "registered": ("ready", "quarantined", "retired"),
        "ready": ("suspect", "draining", "quarantined", "offline"),
        "suspect": ("ready", "draining", "quarantined", "offline"),
        "draining": ("suspect", "ready", "quarantined", "offline"),
        "quarantined": ("ready", "draining", "offline", "retired"),
        "offline": ("quarantined", "retired"),
        "retired": (),
    },
)
AllocationState = Literal["requested", "provisioning", "failed", "activating", "active", "releasing", "released"]
ALLOCATION: Final = Kind(
    "allocation",
    Allocation,
    "allocation_id",
    {
        "requested": ("provisioning", "failed"),
        "provisioning": ("activating", "failed"),
        "failed": (),
        "activating": ("active", "failed"),
        "active": ("releasing", "failed"),
        "releasing": ("released",),
        "released": (),
    },
)
AttachmentState = Literal[
    "requested", "validated", "failed", "granted", "mounting", "attached", "detaching", "detached", "detach_failed"
]
ATTACHMENT: Final = Kind(
    "attachment",
    Attachment,
    "attachment_id",
    {
        "requested": ("validated", "failed"),
        "validated": ("granted", "failed"),
        "failed": (),
        "granted": ("mounting", "failed"),
        "mounting": ("attached", "failed", "detaching"),
        "attached": ("detaching",),
        "detaching": ("detached", "detach_failed"),
        "detached": (),
        "detach_failed": ("detaching",),
    },
)
NamespaceState = Literal["active", "archived"]
NAMESPACE: Final = Kind("namespace", Namespace, "namespace_id", {"active": ("archived",), "archived": ()})
PROVIDER_GRANT: Final = Kind("provider_grant", ProviderGrant, "grant_id")
DEBT: Final = Kind("debt", Debt, "debt_id")
METER: Final = Kind("meter", Meter, "meter_id")
LEDGER_ENTRY: Final = Kind("ledger_entry", LedgerEntry, "entry_id")
PAYMENT: Final = Kind("payment", Payment, "payment_id")
STRIPE_EVENT: Final = Kind("stripe_event", StripeEvent, "event_id")
NOTIFICATION: Final = Kind("notification", Notification, "notification_id")
OUTBOX: Final = Kind("outbox", Outbox, "outbox_id")
STEP: Final = Kind("step", Step, "step_id")
FAILURE: Final = Kind("failure", Failure, "failure_id")
RECOVERY_RUN: Final = Kind("recovery_run", RecoveryRun, "recovery_id")
RECOVERY_ACTION: Final = Kind("recovery_action", RecoveryAction, "action_id")
COMPENSATION: Final = Kind("compensation", Compensation, "compensation_id")
AUDIT_LOG: Final = Kind("audit_log", AuditLog, "audit_id")
OPS_CASE: Final = Kind("ops_case", OpsCase, "case_id")
