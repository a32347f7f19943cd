"""The compensation matrix: all 14 rows as one literal table, held to the seed document by a test.

`step` to `owner` are the seed's own cells; the rest is `matrix.md` made data. Rows that say `not_built` are carried
for their text only: their features are refused at start.
"""

from amends.domain.matrix import CaseKind, Matrix, MatrixRow

ROWS = (
    MatrixRow(
        id="R01", name="outbox publish",
        step="Provision request accepted", failure_point="event publish fails after DB write",
        detection="outbox lag monitor", action="outbox re-dispatch and retry publish", owner="Orchestrator",
        entity="outbox", covers=("outbox.publish",), compensations=("compensate·external_call",),
        budget=("outbox_backoff_ms",), billing="none", exhaustion="never: retried for ever; poison is parked",
        cases=("outbox_poison",), code="amends.delivery.streams",
    ),
    MatrixRow(
        id="R02", name="remote user setup",
        step="Remote user setup", failure_point="SSH user/key install fails", detection="worker command exit/error",
        action="mark allocation failed; ensure node remains unassigned", owner="Provisioning Worker",
        entity="allocation", covers=("ssh.user-create", "ssh.key-install"),
        compensations=("reverse·side_effect", "rollback·state_change"),
        budget=("ssh_step_tries", "cleanup_tries", "cleanup_backoff_ms"), billing="no meter, no ledger entry",
        exhaustion="as R04", failure_types=("error", "timeout"),
        cases=("cleanup_exhausted", "host_key_mismatch", "setup_failing"), exhausts="cleanup_exhausted",
        owed=("compensate·side_effect", "cancel·side_effect"), code="actors.allocation.r02_setup",
    ),
    MatrixRow(
        id="R03", name="activation",
        step="Allocation activation", failure_point="DB write fails after remote setup",
        detection="DB transaction failure",
        action="retry transaction; if repeated fail, enqueue cleanup task on node", owner="Provisioning Worker",
        entity="allocation", covers=("activation",), compensations=("compensate·side_effect", "reverse·side_effect"),
        budget=("activation_tries", "activation_backoff_ms", "cleanup_tries", "cleanup_backoff_ms"),
        billing="no ledger entry", exhaustion="as R04",
        cases=("cleanup_exhausted",), exhausts="cleanup_exhausted", owed=("cancel·side_effect",), books=("meters",),
        code="actors.allocation.r03_activation",
    ),
    MatrixRow(
        id="R04", name="release cleanup",
        step="Release start", failure_point="DB state updated but SSH cleanup fails",
        detection="SSH failure log + retry counter",
        action="retry cleanup job; keep allocation released and flag cleanup_pending", owner="Provisioning Worker",
        entity="allocation", covers=("ssh.user-lock", "ssh.user-remove"),
        compensations=("compensate·side_effect", "reverse·side_effect"),
        budget=("cleanup_tries", "cleanup_backoff_ms"), billing="stays stopped at the accepted time",
        exhaustion="escalate, node quarantined", failure_types=("error", "timeout"),
        cases=("cleanup_exhausted", "lockout_failed"), exhausts="cleanup_exhausted", owed=("cancel·side_effect",),
        code="actors.allocation.r04_cleanup",
    ),
    MatrixRow(
        id="R05", name="debit replay", step="Billing debit", failure_point="debit posted twice via replay",
        detection="idempotency conflict", action="reject duplicate using key/window check", owner="Billing Worker",
        entity="meter", covers=("billing.debit",), compensations=("cancel·state_change",), budget=(),
        billing="ledger unchanged", exhaustion="billing_conflict", failure_types=("violation",),
        cases=("billing_conflict",), books=("meters", "ledger_entries"), code="actors.allocation.r05_debit",
    ),
    MatrixRow(
        id="R06", name="duplicate webhook", step="Stripe credit", failure_point="duplicate webhook event",
        detection="unique stripe_event id conflict", action="no-op, acknowledge success", owner="Payments Service",
        entity="payment", covers=("payments.webhook", "stripe.credit"), compensations=("cancel·external_call",),
        budget=("notification_tries", "notification_backoff_ms"),
        billing="one topup", exhaustion="of a mirrored credit: a case", failure_types=("violation", "error", "timeout"),
        cases=("deferred_payment", "payment_currency", "payment_dispute", "billing_conflict", "stripe_mirror_failed"),
        exhausts="stripe_mirror_failed", books=("ledger_entries",),
        code="actors.payment.r06_duplicate",
    ),
    MatrixRow(
        id="R07", name="notification publish", step="Notification publish", failure_point="bus temporary failure",
        detection="publish retry failure",
        action="retry; if max exceeded, persist notification for later dispatch", owner="Notification Worker",
        entity="notification", covers=("notification.publish",), compensations=("compensate·external_call",),
        budget=("notification_tries", "notification_backoff_ms"), billing="none", exhaustion="parked, sent later",
        code="amends.delivery.notifications",
    ),
    MatrixRow(
        id="R08", name="node_offline", step="Active allocation runtime",
        failure_point="node goes offline mid-session", detection="probe/heartbeat failure + worker checks",
        action="transition allocation to `failed`; stop usage accrual; apply credit adjustment per policy; "
        "emit failure notification",
        owner="Provisioning Worker + Billing Worker", entity="allocation", covers=("node.verdict",),
        compensations=("cancel·state_change", "reverse·state_change", "reverse·external_call"),
        budget=("offline_after_ms", "min_failed_probes"), billing="stop at the last good heartbeat; credit by policy",
        exhaustion="degraded while a debt is open", failure_types=("timeout",),
        owed=("reverse·side_effect", "compensate·state_change"),
        cases=("mass_offline", "agent_silent", "detach_failed"),
        books=("meters", "ledger_entries"), code="actors.allocation.r08_node_loss",
    ),
    MatrixRow(
        id="R09", name="force release", step="Admin force-release",
        failure_point="force-release accepted while usage active", detection="admin mutation accepted",
        action="stop usage accrual at accepted timestamp; proceed releasing workflow; no automatic credit unless "
        "refund policy triggers",
        owner="Admin Service + Billing Worker", entity="allocation", covers=("ops.force_release",),
        compensations=("cancel·state_change", "reverse·state_change"), budget=(),
        billing="stop at the accepted time; refund by rule", exhaustion="none", failure_types=("policy",),
        books=("meters", "ledger_entries"), code="actors.allocation.r09_force_release",
    ),
    MatrixRow(
        id="R10", name="attach precheck", step="Storage attach precheck",
        failure_point="target workload/allocation, quota, grant, provider capability, or mount policy is invalid",
        detection="Temporal activity validation failure",
        action="mark `platform_storage_attachments.state=failed`; write audit and outbox; no provider/node side effect",
        owner="Storage Workflow", entity="attachment", covers=("storage.precheck",),
        compensations=("cancel·decision",), budget=(), billing="none", exhaustion="none",
        failure_types=("policy", "violation"), code="actors.attachment.r10_precheck",
    ),
    MatrixRow(
        id="R11", name="provider grant", step="Storage provider grant apply",
        failure_point="provider grant/namespace ACL partially applied, later activity fails",
        detection="provider adapter result + workflow retry exhaustion",
        action="revoke provider grant if possible; otherwise mark provider drift and block mount; mark attachment "
        "`failed`",
        owner="Storage Workflow + Provider Adapter", entity="attachment",
        covers=("provider.grant", "provider.verify", "provider.revoke"),
        compensations=("reverse·external_call", "compensate·state_change"),
        budget=("grant_tries", "revoke_tries", "provider_backoff_ms"), billing="none", exhaustion="provider_drift",
        failure_types=("error", "timeout"), cases=("provider_drift",), exhausts="provider_drift",
        code="actors.attachment.r11_grant",
    ),
    MatrixRow(
        id="R12", name="node mount", step="Storage node mount",
        failure_point="node-agent mount task dispatched but task fails or health check fails",
        detection="node task result, heartbeat timeout, mount probe",
        action="dispatch idempotent unmount if needed; revoke ephemeral provider grant; mark attachment `failed`; "
        "storage namespace remains intact",
        owner="Storage Workflow + Node Agent", entity="attachment", covers=("agent.mount", "agent.probe_mount"),
        compensations=("reverse·side_effect", "reverse·external_call"),
        budget=("mount_timeout_ms", "unmount_tries", "unmount_backoff_ms"), billing="none",
        exhaustion="as R13", failure_types=("error", "timeout"),
        owed=("compensate·state_change",), cases=("detach_failed", "provider_drift"),
        code="actors.attachment.r12_mount",
    ),
    MatrixRow(
        id="R13", name="detach", step="Storage detach",
        failure_point="allocation release or explicit detach cannot unmount after retries",
        detection="node task timeout/result + workflow retry exhaustion",
        action="mark attachment `detach_failed`; keep storage namespace; require operator retry through API/workflow, "
        "not direct DB update",
        owner="Storage Workflow + Ops", entity="attachment", covers=("agent.unmount",),
        compensations=("compensate·state_change",), budget=("unmount_tries", "unmount_backoff_ms"), billing="none",
        exhaustion="detach_failed", failure_types=("error", "timeout"), cases=("detach_failed",),
        exhausts="detach_failed", owed=("reverse·side_effect", "reverse·external_call", "cancel·side_effect"),
        code="actors.attachment.r13_detach",
    ),
    MatrixRow(
        id="R14", name="quota reconcile", step="Storage quota reconcile",
        failure_point="provider reports usage above quota or quota cannot be enforced",
        detection="provider reconcile activity/read model",
        action="block new read-write attachments; surface quota flag; keep existing mounted workloads unless policy "
        "explicitly requires intervention",
        owner="Storage Workflow + Storage Service", entity="namespace", covers=("provider.usage",),
        compensations=("compensate·state_change",), budget=("quota_interval_ms",), billing="none",
        exhaustion="degraded until cleared", failure_types=("policy",), code="actors.namespace.r14_quota",
    ),
)  # fmt: skip

MATRIX = Matrix("2026-11-29.1", ROWS)

# What a person settles: kind of case, and the commands that may; its page is docs/runbooks/<kind>.md.
FREE = (
    "billing_conflict", "deferred_payment", "payment_currency", "payment_dispute", "stripe_mirror_failed",
    "world_difference",
)  # fmt: skip
CASES = tuple(
    CaseKind(kind, commands, f"{kind}.md", kind not in FREE)
    for kind, commands in (
        ("cleanup_exhausted", ("ops.cleanup.retry", "ops.node.retire")),
        ("lockout_failed", ("ops.cleanup.retry",)),
        ("outbox_poison", ("ops.outbox.redispatch", "ops.outbox.skip")),
        ("actor_quarantined", ("ops.case.resolve",)),
        ("unknown_step", ("ops.case.resolve",)),
        ("host_key_mismatch", ("ops.node.update", "ops.node.return_to_service", "ops.node.retire")),
        ("node_flapping", ("ops.node.return_to_service", "ops.node.retire")),
        ("setup_failing", ("ops.node.return_to_service", "ops.node.update", "ops.node.retire")),
        ("identity_conflict", ("ops.node.return_to_service", "ops.node.retire")),
        ("restored_unknown", ("ops.node.return_to_service", "ops.node.retire")),
        ("mass_offline", ("ops.detector.confirm",)),
        ("agent_silent", ("ops.node.drain", "ops.node.quarantine", "ops.node.update")),
        ("reconcile_stalled", ("ops.node.return_to_service", "ops.node.retire")),
        ("billing_conflict", ("ops.case.resolve",)),
        ("provider_drift", ("ops.provider.reconcile",)),
        ("detach_failed", ("ops.attachment.retry_detach", "ops.attachment.acknowledge_node_lost")),
        ("deferred_payment", ("ops.payment.assign", "cmd.account.create", "ops.case.resolve")),
        ("payment_currency", ("ops.payment.assign", "ops.case.resolve")),
        ("payment_dispute", ("ops.case.resolve",)),
        ("world_difference", ("ops.node.quarantine", "ops.case.resolve")),
        ("stripe_mirror_failed", ("ops.account.retry_mirror", "ops.case.resolve")),
    )
)
