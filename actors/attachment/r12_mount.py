"""The mount task on the node, probed before it counts; undone where it fails: unmount, then access (R12).

While the node is silent access goes first, and the unmount is owed.
"""

from actors.attachment import mount, r10_precheck, r11_grant, r13_detach
from actors.attachment.state import Attachment, mount_args, mount_ref
from actors.between import GrantGone, LateMount
from actors.facts import facts
from amends.turn.cases import close_case
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.recovery import Run, begin_run, failed_step, failure, find_run

SUSPECT = "node_suspect"


def begin(s: Attachment, d: Decision) -> None:
    """The task goes out; from its intent on something may be mounted."""
    if s.state != "granted":
        return
    d.require("allocation", s.allocation_id, ("active",))
    d.require("node", s.node_id or "", ("ready", "draining"))
    args = mount_args(s, d.id)
    undo = {**args, "action_id": ""}
    step_id = d.step(mount.MOUNT, mount_ref(s, d.id), args, key=f"{s.attempt_id}:mount", undo=undo)
    made_by = next(owed.of for owed in d.state.owed if owed.what == mount.MOUNT)
    d.part("mount", made_by=made_by)
    d.to("mounting", details={"step_id": step_id})


def mounted(s: Attachment, m: StepDone, d: Decision) -> None:
    """The task or the probe after it has ended."""
    if s.undo.code:
        r13_detach.note(d, m)
        return
    if not m.ok:
        fail(s, m, d)
    elif m.name == mount.MOUNT:
        d.step(mount.PROBE, mount_ref(s, d.id), mount_args(s, d.id), key=f"{s.attempt_id}:probe")
    else:
        d.to("attached")


def fail(s: Attachment, m: StepDone, d: Decision) -> None:
    """What may be there is undone, the last thing first; access goes first where the node is not heard."""
    run = failed_step(d, m)
    node = facts(d).node(s.node_id or "")
    silent = node is None or node.state in ("suspect", "offline")
    absent = mount.is_absent(m) or (m.name == mount.MOUNT and not m.outcome.may_have_run)
    d.part("undo", code=m.outcome.code or "mount_failed", row=run.row.id)
    if absent:
        d.part("mount", unmounted=True)
        d.undone(mount.UNMOUNT, mount_ref(s, d.id))
    if absent or silent:
        r11_grant.leave(d, run)
    else:
        mount.unmount(d, run, 1)


def suspect(s: Attachment, d: Decision) -> None:
    """Its node is silent: the task is not waited for; access goes first, and the unmount is owed."""
    said = f"the node {s.node_id} is suspect"
    span = d.did(mount.MOUNT, 1, False, d.now_us, SUSPECT, said)
    run = begin_run(d, d.context.matrix.row_of(mount.MOUNT).id, original=(d.trace_id, span))
    run.caused_by(failure(
        d, SUSPECT, said, component=mount.MOUNT, span_id=span, failure_type="timeout", run=run
    ))  # fmt: skip
    d.part("undo", code=SUSPECT, row=run.row.id)
    r11_grant.leave(d, run)


def late(s: Attachment, m: LateMount, d: Decision) -> None:
    """A mount that was given up has succeeded after all: it gets another unmount, and the state stays.

    Where an unmount is owed or under way already it finds that mount too.
    """
    if s.state not in ("failed", "detached") or s.owing:
        return
    d.audit("attachment.late_mount", mount_ref(s, d.id), details={"task_id": m.task_id})
    d.part("mount", unmounted=False, late=True)
    mount.unmount(d, None, 1)


def unmounted(s: Attachment, m: StepDone, d: Decision) -> None:
    """A try to undo the mount has ended; exhausted on a living node it is a detach that cannot unmount (R13)."""
    run = find_run(d, s.leaving.key) if s.leaving.key else find_run(d, s.undo.row)
    if run is None and not s.mount.late:
        r13_detach.note(d, m)
        return
    if mount.again_if_stale(d, run, m):
        r13_detach.note(d, m)
        return
    done = r13_detach.believed(d, m)
    if run is None and done:
        d.part("mount", unmounted=True, late=False)
        d.undone(mount.UNMOUNT, m.target)
        return
    if run is None:
        run = begin_run(d, d.context.matrix.row_of(mount.UNMOUNT).id, original=(m.trace_id, m.span_id))
        d.part("leaving", key=run.row.id)
        mount.owe(d)
        r13_detach.tell_rental(d)
        run.degrade()
    if done:
        _reversed(s, m, d, run)
        if s.state != "mounting":  # it was owed; access is gone already
            settle_debt(d)
            run.end("recovered")
        else:
            r11_grant.leave(d, run)
        return
    failed_step(d, m, run)
    run.retry("unmount", mount_ref(s, d.id), False, attempt=m.attempt, duration_ms=m.duration_ms, code=m.outcome.code,
              action_id=m.args.get("action_id", ""))  # fmt: skip
    d.part("mount", holders=mount.holders(m))
    if m.attempt < d.limits("unmount_tries"):
        mount.unmount(d, run, m.attempt + 1, after_us=d.limits.delay_us("unmount_backoff_ms", m.attempt, d.id))
    elif s.state != "mounting":
        r13_detach.owe_case(d, run)
    else:
        r13_detach.continue_as(s, d, run, m.outcome.code)


def gone(s: Attachment, m: GrantGone, d: Decision) -> None:
    """Access is back; what is still owed of the mount is so as a debt of the node."""
    run = find_run(d, s.undo.row)
    if run is None:
        return
    comp_id = r11_grant.record(s, d, run, m)
    if not s.mount.unmounted and m.result == "failed":
        r13_detach.continue_as(s, d, run, m.code)  # it may be mounted and have access: nobody else may write there
        d.part("leaving", kept=comp_id)
        return
    if not s.mount.unmounted:
        run.compensate(
            "reverse", "side_effect", "mount", mount_ref(s, d.id), "partial", of=s.mount.made_by, cause=run.id,
            attempt=0, metadata={"owed": "unmount"},
        )  # fmt: skip
        mount.owe(d)
        run.degrade()
        mount.unmount(d, run, 1)
        r10_precheck.end(d.state, d, s.undo.code)
        return
    if m.result == "failed":
        r11_grant.drifted(s, d, run, m, comp_id)
    else:
        run.end("recovered")
    r10_precheck.end(d.state, d, s.undo.code)


def settle_debt(d: Decision) -> None:
    """The node owes the mount no more."""
    close_case(d, r13_detach.CASE, "it is unmounted", d.ref)
    mount.settle(d)
    r13_detach.tell_rental(d)


def _reversed(s: Attachment, m: StepDone, d: Decision, run: Run) -> None:
    d.part("mount", unmounted=True)
    d.undone(mount.UNMOUNT, m.target)
    run.compensate(
        "reverse", "side_effect", "mount", mount_ref(s, d.id), "success", of=s.mount.made_by, cause=run.id,
        attempt=m.attempt, duration_ms=m.duration_ms, action_id=m.args.get("action_id", ""),
        metadata={"earlier_run": s.leaving.earlier} if s.leaving.earlier else {}, supersedes=s.leaving.superseded,
    )  # fmt: skip
