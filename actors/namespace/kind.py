"""The namespace actor: known, its usage read again and again, archived. Only its own commands, R11 and R14 touch it."""

from typing import Any

from msgspec.structs import replace

from actors import differences
from actors.between import DriftCleared, Drifted, DriftTried, GrantReconciled, ReconcileGrant, RevokeTried, Work
from actors.differences import LookAround
from actors.facts import facts
from actors.grant.state import grant_of
from actors.namespace import r14_quota, world
from actors.namespace.messages import ArchiveNamespace, CreateNamespace, ReconcileProvider, SetQuota
from actors.namespace.state import Drift, Namespace, view_namespace
from amends.domain.kinds import ActorKind, Legal
from amends.turn.cases import close_case
from amends.turn.decision import Decision
from amends.turn.messages import StepDone, TimerFired
from amends.turn.recovery import Run, begin_run, find_run

DRIFT = "provider_drift"
GONE = "the provider has given it back"
RECONCILE = "reconcile"  # the key of an operator's run


def _create(s: Namespace | None, m: CreateNamespace, d: Decision) -> None:
    if s is not None:
        d.refuse("already_exists", f"the namespace {m.namespace_id!r} exists", field="namespace_id")
    if facts(d).account(m.account_id) is None:
        d.refuse("not_found", f"there is no account {m.account_id!r}", field="account_id")
    d.create(Namespace(
        state="active", account_id=m.account_id, provider_id=m.provider_id, quota_bytes=m.quota_bytes,
        created_us=d.now_us,
    ))  # fmt: skip
    r14_quota.read(d)


def _set_quota(s: Namespace, m: SetQuota, d: Decision) -> None:
    d.set(quota_bytes=m.quota_bytes)
    d.audit("namespace.set_quota", details={"quota_bytes": m.quota_bytes, "was": s.quota_bytes})
    if r14_quota.TIMER in s.timers:  # else a read is under way
        r14_quota.read(d)


def _archive(s: Namespace, m: ArchiveNamespace, d: Decision) -> None:
    if s.state == "archived":
        return
    if facts(d).attachments_of_namespace(d.id):
        d.refuse("illegal_transition", "it is still attached somewhere; detach it first", field="namespace_id")
    if s.drift:
        d.refuse("debt_open", "a grant of it has drifted; ops.provider.reconcile first", field="namespace_id")
    d.cancel(r14_quota.TIMER)
    for key in list(s.runs):
        run = find_run(d, key)
        if run is not None:
            run.end("recovered")
    d.to("archived", flag="")


# --- drift -----------------------------------------------------------------------------------------------------


def _drifted(s: Namespace, m: Drifted, d: Decision) -> None:
    """A grant on one node could not be taken back: the pair is blocked until it is gone (R11)."""
    known = s.drift.get(m.node_id)
    if known is None and m.attachment_id:  # it was settled before the attachment had its say
        d.tell("attachment", m.attachment_id, DriftCleared(GONE))
        return
    if known is None:
        known = Drift(m.grant_id, d.now_us)
        d.audit("namespace.drift", details={"node_id": m.node_id, "grant_id": m.grant_id})
    left = tuple(sorted({*known.attachments, m.attachment_id} - {""}))
    drift = replace(known, grant_id=m.grant_id, comp_id=m.comp_id or known.comp_id, attachments=left)
    if m.case_id:
        drift = replace(drift, case_of=m.attachment_id, case_kind=m.case_kind, case_id=m.case_id)
    d.set(drift={**s.drift, m.node_id: drift})


def _reconcile(s: Namespace, m: ReconcileProvider, d: Decision) -> None:
    drift = s.drift.get(m.node_id)
    if drift is None:
        d.refuse("illegal_transition", f"no grant of this namespace has drifted on {m.node_id!r}", field="node_id")
    key = f"{RECONCILE} {m.node_id}"
    d.audit("provider.reconcile", reason=m.reason, details={"node_id": m.node_id})
    if key in s.runs:
        return  # it is being asked already
    run = begin_run(d, d.context.matrix.row_of("provider.grant").id, key=key, trigger_type="policy", trigger_ref=d.ref)
    _tell(d, drift, DriftTried(True, m.reason))
    action_id, (trace_id, span_id) = run.plan()
    d.tell("grant", grant_of(d.id, m.node_id), ReconcileGrant(Work(action_id, trace_id, span_id)))


def _tried(s: Namespace, m: RevokeTried, d: Decision) -> None:
    run = find_run(d, f"{RECONCILE} {m.node_id}")
    if run is not None:
        target = f"provider:{s.provider_id}/grant:{m.grant_id}"
        run.retry("revoke", target, False, attempt=m.attempt, code=m.code)


def _reconciled(s: Namespace, m: GrantReconciled, d: Decision) -> None:
    """How an operator's word has ended, or that of an attachment's: the drift is gone, or a person is still needed."""
    drift, run = s.drift.get(m.node_id), find_run(d, f"{RECONCILE} {m.node_id}")
    if drift is None:
        return
    gone, target = m.gone, f"provider:{s.provider_id}/grant:{drift.grant_id}"
    good = gone.result != "failed"
    if run is not None:
        run.compensate(
            "reverse", "external_call", "grant", target, "success" if good else "failure",
            of=gone.made_by or f"{d.trace_id}:{d.span_id}", cause=run.id, duration_ms=gone.duration_ms,
            metadata={"code": gone.code} if gone.code else {}, supersedes=drift.comp_id if good else "",
        )  # fmt: skip
    if good:
        d.set(drift={node: each for node, each in s.drift.items() if node != m.node_id})
        _tell(d, drift, DriftCleared(GONE))
        close_case(d, DRIFT, GONE)
        if run is not None:
            run.end("recovered")
    elif run is not None:
        d.set(drift={**s.drift, m.node_id: replace(drift, comp_id=run.newest(target))})
        _tell(d, drift, DriftTried(False, gone.code))
        _escalate(d, run, drift, {"node_id": m.node_id, "grant_id": drift.grant_id, "code": gone.code})


def _escalate(d: Decision, run: Run, drift: Drift, evidence: dict[str, Any]) -> None:
    """A drift has one case, an attachment's if one has said so: it is open still, and the run is put into its hands."""
    if not drift.case_id:
        run.exhausted(d.ref, evidence)
        return
    ref = f"attachment:{drift.case_of}"
    run.action("escalate", drift.case_kind, ref, "success", metadata={"case_id": drift.case_id, **evidence})
    run.end("failed")


def _tell(d: Decision, drift: Drift, message: DriftTried | DriftCleared) -> None:
    for attachment_id in drift.attachments:
        d.tell("attachment", attachment_id, message)


def _timer(s: Namespace, m: TimerFired, d: Decision) -> None:
    if m.name == r14_quota.TIMER:
        r14_quota.read(d)


def _step_done(s: Namespace, m: StepDone, d: Decision) -> None:
    if m.name == world.STEP:
        world.seen(s, m, d)
    else:
        r14_quota.done(s, m, d)


NAMESPACE = ActorKind(
    name="namespace",
    table="namespaces",
    columns={"account_id": str, "provider_id": str},
    state_type=Namespace,
    states={"active": "rest", "archived": "forever"},
    transitions={("", "active"): "namespace.create", ("active", "archived"): "namespace.archive"},
    handlers={
        CreateNamespace: _create,
        SetQuota: _set_quota,
        ArchiveNamespace: _archive,
        ReconcileProvider: _reconcile,
        Drifted: _drifted,
        GrantReconciled: _reconciled,
        RevokeTried: _tried,
        StepDone: _step_done,
        LookAround: world.look,
        TimerFired: _timer,
    },
    creates=frozenset({CreateNamespace}),
    legal={
        SetQuota: Legal(("active",), "given a quota"),
        ReconcileProvider: Legal(("active", "archived"), "reconciled"),
    },
    view=view_namespace,
    owner=lambda s: s.account_id,
    owes=lambda s, kind, d: kind == DRIFT and bool(s.drift),
    resolved=lambda s, m, d: differences.resolved(d, m),
)
