"""Access at the provider: asked for, and taken back where it was given in part or not at all (R11)."""

from actors.attachment import r10_precheck
from actors.attachment.state import HOLDING, Attachment, grant_ref
from actors.between import (
    Drifted,
    GrantGone,
    GrantReady,
    GrantRefused,
    GrantTried,
    LeaveGrant,
    RevokeTried,
    UseGrant,
    Work,
)
from actors.grant.state import grant_of
from amends.turn.cases import find_case
from amends.turn.decision import Decision
from amends.turn.recovery import Run, begin_run, failure, find_run

STEP, CASE = "provider.grant", "provider_drift"


def ask(s: Attachment, d: Decision) -> None:
    """Everything checked: access is asked for, unless a check fails by the time that the grant's own turn commits."""
    d.tell("grant", grant_of(s.namespace_id, s.node_id or ""), UseGrant(
        d.id, s.allocation_id, s.namespace_id, s.provider_id, s.node_id or "", s.node_epoch, s.mode,
    ))  # fmt: skip


def refused(s: Attachment, m: GrantRefused, d: Decision) -> None:
    """A check failed there; which ones do now is looked at again. If none does, it was a moment's."""
    if s.state != "validated" or s.undo.code:
        return
    now = r10_precheck.failing(s, d.id, d)
    codes = [code for code in r10_precheck.CHECKS if code in m.codes or code in now]
    run = find_run(d, _row(d))
    if codes and run is not None:  # a try had failed; what it asked for is others' by now
        run.end("recovered")
    if codes:
        r10_precheck.refuse(s, d, codes)
    else:
        d.timer("check", d.now_us + d.limits.us("suspect_after_ms"))


def ready(s: Attachment, m: GrantReady, d: Decision) -> None:
    """The node has access; the mount task goes out next if all that was checked is so still in this very turn (R10)."""
    if s.state != "validated" or s.undo.code:  # it is being taken back
        return
    codes = r10_precheck.failing(s, d.id, d, again=True)
    if codes:
        d.set(grant_id=m.grant_id)
        undo(s, d, ",".join(codes))
        return
    r10_precheck.require(s, d)
    run = find_run(d, _row(d))
    if run is not None:  # a try had failed before
        run.end("recovered")
    d.part("mount", source=m.source)
    d.to("granted", grant_id=m.grant_id)
    d.timer("mount", d.now_us)


def undo(s: Attachment, d: Decision, code: str, *, fence: bool = False) -> None:
    """Not for the provider's sake: access that was asked for is given back, and then it has failed with that code."""
    run = begin_run(d, _row(d), trigger_type="policy", trigger_ref=d.ref)
    d.part("undo", code=code, row=run.row.id)
    leave(d, run, fence=fence)


def tried(s: Attachment, m: GrantTried, d: Decision) -> None:
    """A try at the provider has failed; after the last one access is taken back, whatever there is of it."""
    if s.state != "validated" or s.undo.code:
        return
    run = find_run(d, _row(d)) or begin_run(d, _row(d), original=(m.trace_id, m.span_id))
    run.caused_by(failure(
        d, m.code, m.message, component=m.name, span_id=m.span_id, trace_id=m.trace_id, ref=f"step:{m.step_id}",
        failure_type="timeout" if m.code.endswith("timeout") else "error", run=run,
    ))  # fmt: skip
    run.action(
        "retry", "grant", grant_ref(s, m.grant_id), "failure", duration_ms=max(0, m.ended_us - m.started_us) // 1000,
        metadata={"attempt": m.attempt, "code": m.code}, started_us=m.started_us,
    )  # fmt: skip
    d.set(grant_id=m.grant_id)
    if m.over:
        d.part("undo", code=m.code, row=run.row.id)
        leave(d, run)


def leave(d: Decision, run: Run | None, *, fence: bool = False, again: bool = False) -> None:
    """No use for the access any more; where a run goes on its end is an action of that."""
    s: Attachment = d.state
    work = Work()
    if run is not None:
        action_id, (trace_id, span_id) = run.plan()
        work = Work(action_id, trace_id, span_id)
    d.part("leaving", work=work)
    d.tell("grant", grant_of(s.namespace_id, s.node_id or ""), LeaveGrant(d.id, work, fence, again))


def record(s: Attachment, d: Decision, run: Run, gone: GrantGone) -> str:
    """The record of the access that was taken back, or could not be; its id, "" where there was nothing."""
    if gone.result == "shared" or (gone.result == "none" and s.grant_id is None):
        return ""
    target = grant_ref(s, gone.grant_id)
    of = gone.made_by or s.mount.made_by or f"{d.trace_id}:{d.span_id}"
    run.compensate(
        "reverse", "external_call", "grant", target, "failure" if gone.result == "failed" else "success", of=of,
        cause=run.id, duration_ms=gone.duration_ms, metadata={"code": gone.code} if gone.code else {},
        action_id=s.leaving.work.action_id, supersedes=s.leaving.kept,
    )  # fmt: skip
    return run.newest(target)


def kept(s: Attachment, m: RevokeTried, d: Decision) -> None:
    """A try to take it back has failed: on the record of the run that it is part of; a detach has one from now on."""
    if m.action_id != s.leaving.work.action_id or s.state not in HOLDING:
        return
    key = s.leaving.key if s.state == "detaching" else s.undo.row
    row = d.context.matrix.row_of("agent.unmount").id
    run = find_run(d, key) if key else begin_run(d, row, original=(m.trace_id, m.span_id))
    if run is None:
        return
    if not key:
        d.part("leaving", key=row)
    run.caused_by(m.failure_id or failure(  # the provider said that it was gone, and it was not
        d, m.code, "the provider says that it is gone, and it is not", component="provider.verify", span_id=m.span_id,
        trace_id=m.trace_id, ref=grant_ref(s, m.grant_id), failure_type="error", run=run,
    ))  # fmt: skip
    run.retry("revoke", grant_ref(s, m.grant_id), False, attempt=m.attempt, code=m.code)


def retried(s: Attachment, d: Decision, run: Run, gone: GrantGone) -> None:
    """It took several tries, and the last one went well."""
    if gone.result == "revoked" and gone.tries > 1:
        run.retry("revoke", grant_ref(s, gone.grant_id), True, attempt=gone.tries, duration_ms=gone.duration_ms)


def gone(s: Attachment, m: GrantGone, d: Decision) -> None:
    """Access that could not be used is taken back: failed, or blocked by what the provider keeps (R11)."""
    run = find_run(d, s.undo.row)
    if run is None:
        return
    comp_id = record(s, d, run, m)
    if m.result == "failed":
        drifted(s, d, run, m, comp_id)
    else:
        if not comp_id:  # it is others', or there was none: nothing is taken back, and it says so
            target = grant_ref(s, m.grant_id) if m.grant_id or s.grant_id else d.ref
            run.action("fallback", "grant", target, "success", metadata={"access": m.result})
        run.end("recovered")
    d.set(grant_id=m.grant_id or s.grant_id)
    r10_precheck.end(d.state, d, s.undo.code)


def drifted(s: Attachment, d: Decision, run: Run, m: GrantGone, comp_id: str) -> None:
    """The provider keeps it: mounts of the pair are blocked, and a person is needed."""
    run.compensate(
        "compensate", "state_change", "block", f"namespace:{s.namespace_id}", "success", of=m.made_by or
        f"{d.trace_id}:{d.span_id}", cause=run.id, metadata={"node_id": s.node_id, "grant_id": m.grant_id},
    )  # fmt: skip
    run.escalate(CASE, d.ref, {
        "namespace_id": s.namespace_id, "node_id": s.node_id, "grant_id": m.grant_id, "code": m.code,
    })  # fmt: skip
    tell_drift(d, m.grant_id, comp_id, CASE)
    run.end("failed")


def tell_drift(d: Decision, grant_id: str, comp_id: str, case: str) -> None:
    """The namespace, which knows of the drift by its grant, hears by which record and case it is this one's too."""
    s: Attachment = d.state
    d.tell("namespace", s.namespace_id, Drifted(s.node_id or "", grant_id, d.id, comp_id, case, find_case(d, case)))


def _row(d: Decision) -> str:
    return d.context.matrix.row_of(STEP).id
