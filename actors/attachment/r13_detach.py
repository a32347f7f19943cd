"""Detach: unmount, then access back; given up after its tries, and then left to an operator's word alone (R13).

Never lazily and never by force. What may still be mounted keeps its namespace busy, its grant, and a debt of its node.
"""

from typing import Any

from actors.attachment import mount, r10_precheck, r11_grant
from actors.attachment.messages import AcknowledgeNodeLost, Detach, RetryDetach
from actors.attachment.state import Attachment, grant_ref, mount_ref
from actors.between import AttachmentSettled, GrantGone, MountGivenUp, Work
from actors.facts import facts
from amends.turn.cases import close_case
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.notify import notify
from amends.turn.recovery import Run, begin_run, failed_step, failure, failure_of, find_run

CASE = "detach_failed"
STEP, REVOKE = "agent.unmount", "provider.revoke"
NOT_REVOKED = "not_revoked"
ENDED = ("failed", "detached")
HERE = ("ready", "draining", "suspect", "quarantined")  # states of a node that is not given up


def detach(s: Attachment, m: Detach, d: Decision) -> None:
    """A caller detaches; of what is on its way out already it is ok."""
    if s.state in ("detaching", "detached"):
        return
    if s.state in ("failed", "detach_failed"):
        why = "an operator must retry it" if s.state == "detach_failed" else "it never was attached"
        d.refuse("illegal_transition", f"the attachment is {s.state}: {why}", state=s.state)
    begin(s, d, "detach")


def begin(s: Attachment, d: Decision, cause: str) -> None:
    """On its way out by any cause but its node's loss: a mount that was begun is undone, else only access."""
    if s.state in ("requested", "validated", "granted"):
        before_mount(s, d, cause)
    elif s.state in ("mounting", "attached") and not s.undo.code:
        d.part("leaving", cause=cause)
        d.to("detaching", cause=cause)
        mount.unmount(d, None, 1)


def before_mount(s: Attachment, d: Decision, cause: str) -> None:
    """Released, detached or lost before its mount task: failed, and access that was asked for is given back."""
    if s.undo.code:
        return
    d.cancel("check", "mount")
    if s.state == "requested":
        r10_precheck.end(s, d, cause)
        return
    r11_grant.undo(s, d, cause, fence=cause == "node_lost")


def note(d: Decision, m: StepDone) -> None:
    """A try failed that no run is about any more: said all the same."""
    if not m.ok:
        failure_of(d, m)


def unmounted(s: Attachment, m: StepDone, d: Decision) -> None:
    """A try of a detach to unmount has ended."""
    if s.leaving.cause in ("node_lost", "acknowledged"):
        note(d, m)
        return  # access has ended; what the node has is its own business when it is back
    run = find_run(d, s.leaving.key) if s.leaving.key else None
    if mount.again_if_stale(d, run, m):
        note(d, m)
        return
    if believed(d, m):
        d.part("mount", unmounted=True)
        d.undone(STEP, m.target)
        if run is not None and s.leaving.cause == "retry":
            run.compensate(
                "reverse", "side_effect", "mount", mount_ref(s, d.id), "success", of=s.mount.made_by, cause=run.id,
                attempt=m.attempt, duration_ms=m.duration_ms, action_id=m.args.get("action_id", ""),
                metadata={"earlier_run": s.leaving.earlier}, supersedes=s.leaving.superseded,
            )  # fmt: skip
        elif run is not None:
            run.retry("unmount", mount_ref(s, d.id), True, attempt=m.attempt, duration_ms=m.duration_ms,
                      action_id=m.args.get("action_id", ""))  # fmt: skip
        leave(d, run, again=s.leaving.cause == "retry")
        return
    begun, run = run, failed_step(d, m, run)
    if begun is None:
        d.part("leaving", key=run.row.id)
    run.retry("unmount", mount_ref(s, d.id), False, attempt=m.attempt, duration_ms=m.duration_ms, code=m.outcome.code,
              action_id=m.args.get("action_id", ""))  # fmt: skip
    d.part("mount", holders=mount.holders(m))
    if m.attempt < d.limits("unmount_tries"):
        wait_us = d.limits.delay_us("unmount_backoff_ms", m.attempt, d.id)
        mount.unmount(d, run, m.attempt + 1, after_us=wait_us)
    else:
        give_up(d, run, m.outcome.code)


def believed(d: Decision, m: StepDone) -> bool:
    """Whether it is unmounted: done, or refused by an agent that has seen that there is no mount."""
    absent = not m.ok and mount.is_absent(m)
    if absent:
        note(d, m)
    return m.ok or absent


def leave(d: Decision, run: Run | None, *, fence: bool = False, again: bool = False) -> None:
    """Access is asked back; what a fence of before still waits for comes with that."""
    d.part("leaving", fence=Work())
    r11_grant.leave(d, run, fence=fence, again=again)


def continue_as(s: Attachment, d: Decision, run: Run, code: str) -> None:
    """The undo of a mount cannot unmount on a living node: from here on it is a detach that was given up."""
    d.part("leaving", cause="mount_failed", key=run.row.id, code=code)
    d.to("detaching", cause="mount_failed")
    d.timer("give_up", d.now_us)


def give_up(d: Decision, run: Run, code: str) -> None:
    """A person is needed; nothing is unmounted by force."""
    s: Attachment = d.state
    run.compensate(
        "compensate", "state_change", "detach", d.ref, "failure", of=s.mount.made_by or f"{d.trace_id}:{d.span_id}",
        cause=run.id, metadata={"code": code, "holders": s.mount.holders},
    )  # fmt: skip
    earlier, superseded = run.id, run.newest(d.ref)
    run.escalate(CASE, d.ref, evidence(s, code))
    run.end("failed")
    _also_failed(d, run)
    mount.owe(d)
    d.part("leaving", earlier=earlier, superseded=superseded, key="")
    d.set(reason=code)
    d.to("detach_failed", cause=code)
    notify(d, "attachment.detach_failed", account_id=s.account_id, state="detach_failed", cause=code,
           case_id=d.state.cases.get(CASE, ""))  # fmt: skip
    tell_rental(d)


def evidence(s: Attachment, code: str) -> dict[str, Any]:
    """What a person has to know."""
    return {
        "node_id": s.node_id, "namespace_id": s.namespace_id, "mount_path": s.mount_path, "holders": s.mount.holders,
        "code": code,
    }  # fmt: skip


def given_up(s: Attachment, d: Decision) -> None:
    """The timer after `continue_as`: each transition has a turn of its own."""
    run = find_run(d, s.leaving.key)
    if run is not None and s.state == "detaching":
        give_up(d, run, s.leaving.code or s.undo.code)
        if s.leaving.kept:  # a drift as well
            r11_grant.tell_drift(d, s.grant_id or "", s.leaving.kept, CASE)


def retry(s: Attachment, m: RetryDetach, d: Decision) -> None:
    """An operator's word: the tries begin anew, in a run of its own."""
    _owing(s, d)
    if s.state in ENDED and CASE not in s.cases:
        d.refuse("illegal_transition", "its unmount is being tried still", state=s.state)
    if facts(d).node(s.node_id or "") is None:
        said = f"the node {s.node_id!r} is retired: acknowledge that it is lost"
        d.refuse("illegal_transition", said, field="attachment_id")
    run = reopened(s, d, "retry", m.reason)
    if s.state in ENDED:
        mount.unmount(d, run, 1)
        return
    d.set(reason=None)
    d.to("detaching", cause="retry", reason=m.reason)
    if s.mount.unmounted:
        leave(d, run, again=True)
    else:
        mount.unmount(d, run, 1)


def acknowledge(s: Attachment, m: AcknowledgeNodeLost, d: Decision) -> None:
    """The node is gone, an operator says: nothing is mounted there; access is taken back first and last."""
    _owing(s, d)
    if s.state == "detaching" and s.leaving.cause != "retry":
        d.refuse("illegal_transition", "it is being detached; nothing was given up", state=s.state)
    node = facts(d).node(s.node_id or "")
    if node is not None and node.state in HERE:
        d.refuse(
            "illegal_transition", f"the node {s.node_id!r} is {node.state}: retry the detach", field="attachment_id"
        )
    if s.state in ENDED:
        give_mount_up(d, m.reason)
        return
    run = reopened(s, d, "acknowledged", m.reason)
    taken_over(d, run, d.state.leaving.key)
    if s.state != "detaching":
        d.to("detaching", cause="acknowledged", reason=m.reason)
    d.set(reason="node_lost")
    leave(d, run, fence=True, again=True)


def _owing(s: Attachment, d: Decision) -> None:
    if s.state in ENDED and not s.owing:
        d.refuse("illegal_transition", f"it is {s.state} and owes nothing", state=s.state)


def given_up_with_node(s: Attachment, m: MountGivenUp, d: Decision) -> None:
    """Its node is retired with what it owes."""
    if s.state in ENDED and s.owing:
        give_mount_up(d, m.reason)


def give_mount_up(d: Decision, reason: str) -> None:
    """The unmount that is owed after a failed mount will never be done: on the record, and nothing is owed any more."""
    s: Attachment = d.state
    row = d.context.matrix.row_of(STEP).id
    key = f"{row} acknowledged"
    run = begin_run(d, row, key=key, trigger_type="policy", trigger_ref=d.ref)
    taken_over(d, run, key)
    run.compensate(
        "cancel", "side_effect", "mount", mount_ref(s, d.id), "success", of=s.mount.made_by, cause=run.id,
        metadata={"acknowledged": "node lost", "reason": reason, "earlier_run": s.leaving.earlier},
        supersedes=s.leaving.superseded,
    )  # fmt: skip
    run.end("recovered")
    mount.settle(d)
    close_case(d, CASE, reason, d.ref)
    d.set(owed=())
    tell_rental(d)


def taken_over(d: Decision, by: Run, key: str) -> None:
    """What every other run of it was about is done by this one, under that key; each says so, and by which."""
    s: Attachment = d.state
    for other in _others(d, key):
        owed = other.newest(mount_ref(s, d.id)) and not s.mount.unmounted
        target = mount_ref(s, d.id) if owed else d.ref
        other.action("fallback", "taken over", target, "success", metadata={"taken_over_by": by.id})
        other.end("recovered")
    d.recovery_trace_id = by.trace_id


def _also_failed(d: Decision, run: Run) -> None:
    """It was given up by this run, and with it what the others were about; the case is theirs too."""
    fencing = d.context.matrix.row_of("node.verdict").id if d.state.leaving.fence.action_id else ""
    for other in _others(d, fencing):
        metadata = {"case_id": d.state.cases.get(CASE, ""), "taken_over_by": run.id}
        other.action("escalate", CASE, d.ref, "success", metadata=metadata)
        other.end("failed")
    d.recovery_trace_id = run.trace_id


def _others(d: Decision, key: str) -> list[Run]:
    found = [find_run(d, each) for each in d.state.runs if each != key]
    return [run for run in found if run is not None]


def reopened(s: Attachment, d: Decision, cause: str, reason: str) -> Run:
    """The run of an operator's word, of which the case says that it is under way."""
    row = d.context.matrix.row_of(STEP).id
    key = f"{row} {cause}"
    run = begin_run(d, row, key=key, trigger_type="policy", trigger_ref=f"case:{s.cases.get(CASE, '')}")
    run.case(CASE, d.ref, state="retrying", reason=reason)
    d.audit(f"attachment.{cause}", reason=reason)
    d.part("leaving", cause=cause, key=key)
    return run


def gone(s: Attachment, m: GrantGone, d: Decision) -> None:
    """Access is back, and with it the attachment is over; or the provider keeps it, and a person is needed."""
    run = find_run(d, s.leaving.key) if s.leaving.key else None
    if m.result == "failed":
        run = run or begin_run(d, d.context.matrix.row_of(STEP).id, original=(d.trace_id, d.span_id))
        not_revoked(s, d, run, m)
        comp_id = r11_grant.record(s, d, run, m)
        give_up(d, run, m.code or NOT_REVOKED)
        d.part("leaving", kept=comp_id)
        r11_grant.tell_drift(d, m.grant_id, comp_id, CASE)
        return
    if run is not None:
        if s.leaving.cause in ("node_lost", "acknowledged", "retry"):
            r11_grant.record(s, d, run, m)
        else:
            r11_grant.retried(s, d, run, m)
        if s.leaving.cause == "reconciled":
            run.compensate(
                "compensate", "state_change", "detach", d.ref, "success", of=s.mount.made_by, cause=run.id,
                metadata={"earlier_run": s.leaving.earlier}, supersedes=s.leaving.superseded,
            )  # fmt: skip
        if s.leaving.cause == "acknowledged" and not s.mount.unmounted:
            run.compensate(
                "cancel", "side_effect", "mount", mount_ref(s, d.id), "success", of=s.mount.made_by, cause=run.id,
                metadata={"acknowledged": "node lost"}, supersedes=s.leaving.superseded,
            )  # fmt: skip
        taken_over(d, run, s.leaving.key)
        run.end("recovered")
    mount.settle(d)
    close_case(d, CASE, "it is detached", d.ref)
    d.set(rw_holder=None, owed=())
    d.to("detached", cause=s.leaving.cause)
    tell_rental(d)


def not_revoked(s: Attachment, d: Decision, run: Run, m: GrantGone) -> None:
    """The provider keeps the access: a failure of its run, and what that is about if it begins with it."""
    code, said = m.code or NOT_REVOKED, f"the access of {s.node_id} to {s.namespace_id} was not taken back"
    span = d.did(REVOKE, 1, False, m.started_us or d.now_us, code, said)
    run.caused_by(failure(
        d, code, said, component=REVOKE, span_id=span, ref=grant_ref(s, m.grant_id),
        failure_type="timeout" if code.endswith("timeout") else "error", run=run,
    ))  # fmt: skip


def owe_case(d: Decision, run: Run) -> None:
    """What was owed after a failed mount cannot be unmounted either: a person is needed, and the debt stays."""
    s: Attachment = d.state
    run.compensate(
        "reverse", "side_effect", "mount", mount_ref(s, d.id), "failure", of=s.mount.made_by, cause=run.id,
        attempt=s.mount.tries, metadata={"holders": s.mount.holders},
    )  # fmt: skip
    run.escalate(CASE, d.ref, {"node_id": s.node_id, "mount_path": s.mount_path, "holders": s.mount.holders})
    d.part("leaving", earlier=run.id, superseded=run.newest(mount_ref(s, d.id)))
    run.end("failed")


def tell_rental(d: Decision) -> None:
    """It has ended, or was given up."""
    s: Attachment = d.state
    d.tell("allocation", s.allocation_id, AttachmentSettled(d.id, s.state))
