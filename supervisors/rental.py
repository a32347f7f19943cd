"""The rental domain, assembled: its actor kinds, steps with undo, matrix and cases. Data only."""

from actors.account.kind import ACCOUNT
from actors.account.messages import RetryMirror
from actors.allocation.kind import ALLOCATION
from actors.attachment.kind import ATTACHMENT
from actors.attachment.messages import Attach
from actors.detector.kind import DETECTOR
from actors.grant.kind import GRANT_KIND
from actors.namespace.kind import NAMESPACE
from actors.node.kind import NODE
from actors.payment.kind import PAYMENT
from actors.steps import (
    ApplyGrant,
    InstallKey,
    ListGrants,
    MirrorCredit,
    OnGrant,
    OnMount,
    OnNamespace,
    OnNode,
    OnUser,
    ReadMirror,
    Reconcile,
    RemoveUser,
    TakeInventory,
    UndoUser,
)
from actors.tables import RENTAL_ROWS
from amends.delivery.domain import DELIVERY_KINDS, DELIVERY_REQUESTS, DELIVERY_STEPS
from amends.domain.domain import Domain
from amends.domain.steps import StepSpec
from supervisors.matrix import CASES, MATRIX

# While a node is suspect or offline its cleanups wait and spend no try (R04).
CLEANUP = {"cleanup": "node_in_reach"}

STORAGE_STEPS = (
    StepSpec(name="storage.precheck", external=False, no_undo="nothing was done", failures=("policy",)),
    StepSpec(
        name="provider.grant", adapter="provider", timeout="provider_timeout_ms", undo="provider.revoke",
        args=ApplyGrant,
    ),
    StepSpec(
        name="provider.verify", adapter="provider", timeout="provider_timeout_ms", no_undo="it only asks", args=OnGrant
    ),
    StepSpec(
        name="provider.revoke", adapter="provider", timeout="provider_timeout_ms", no_undo="it is the undo",
        args=OnGrant,
    ),
    StepSpec(
        name="provider.usage", adapter="provider", timeout="provider_timeout_ms", no_undo="it only asks",
        failures=("policy",), args=OnNamespace,
    ),
    StepSpec(
        name="provider.grants", adapter="provider", timeout="provider_timeout_ms", effect=False, needs=("bus",),
        args=ListGrants,
    ),
    StepSpec(name="agent.mount", adapter="agent", timeout="mount_timeout_ms", undo="agent.unmount", args=OnMount),
    StepSpec(
        name="agent.probe_mount", adapter="agent", timeout="mount_timeout_ms", no_undo="it only looks", args=OnMount
    ),
    StepSpec(
        name="agent.unmount", adapter="agent", timeout="mount_timeout_ms", no_undo="it is the undo",
        needs=("bus", "node_in_reach"), args=OnMount,
    ),
)  # fmt: skip

STEPS = (
    StepSpec(name="ssh.probe", adapter="ssh", timeout="probe_timeout_ms", effect=False, args=OnNode),
    StepSpec(
        name="ssh.user-create",
        adapter="ssh",
        timeout="ssh_step_timeout_ms",
        undo="ssh.user-remove",
        args=OnUser,
    ),
    StepSpec(
        name="ssh.key-install",
        adapter="ssh",
        timeout="ssh_step_timeout_ms",
        undo="ssh.user-remove",
        args=InstallKey,
    ),
    StepSpec(
        name="ssh.user-lock",
        adapter="ssh",
        timeout="ssh_step_timeout_ms",
        no_undo="locking out is an undo",
        needs_if=CLEANUP,
        args=UndoUser,
    ),
    StepSpec(
        name="ssh.user-remove",
        adapter="ssh",
        timeout="ssh_step_timeout_ms",
        no_undo="it is the undo",
        after=("ssh.user-lock",),
        needs_if=CLEANUP,
        args=RemoveUser,
    ),
    StepSpec(name="activation", external=False, undo="ssh.user-remove", failures=("error",)),
    StepSpec(
        name="agent.reconcile",
        adapter="agent",
        timeout="mount_timeout_ms",
        effect=False,
        needs=("bus",),
        args=Reconcile,
    ),
    StepSpec(
        name="agent.inventory",
        adapter="agent",
        timeout="mount_timeout_ms",
        effect=False,
        needs=("bus",),
        args=TakeInventory,
    ),
    StepSpec(
        name="node.verdict",
        external=False,
        no_undo="what a lost node costs is settled, not undone",
        failures=("timeout",),
    ),
    StepSpec(
        name="ops.force_release",
        external=False,
        no_undo="an operator's word stands",
        failures=("policy",),
    ),
    StepSpec(
        name="payments.webhook",
        external=False,
        no_undo="what is refused has changed nothing",
        failures=("violation",),
    ),
    StepSpec(
        name="billing.debit",
        external=False,
        no_undo="what is refused has changed nothing",
        failures=("violation",),
    ),
    StepSpec(
        name="stripe.credit",
        adapter="stripe",
        timeout="provider_timeout_ms",
        no_undo="what was given stays given",
        needs=("stripe",),
        per_target=4,
        args=MirrorCredit,
    ),
    StepSpec(
        name="stripe.mirrored",
        adapter="stripe",
        timeout="provider_timeout_ms",
        effect=False,
        needs=("stripe",),
        args=ReadMirror,
    ),
    *STORAGE_STEPS,
    *DELIVERY_STEPS,
)

RENTAL = Domain(
    name="rental",
    kinds=(ACCOUNT, PAYMENT, NODE, ALLOCATION, ATTACHMENT, NAMESPACE, GRANT_KIND, DETECTOR, *DELIVERY_KINDS),
    steps=STEPS,
    requests=(*DELIVERY_REQUESTS, RetryMirror, Attach),
    matrix=MATRIX,
    cases=CASES,
    rows=RENTAL_ROWS,
)
