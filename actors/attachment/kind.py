"""The attachment actor: checked, granted, mounted, detached; undone in reverse where one of these fails.

Automaton and dispatch; its turns stand in files named by row. It knows no provider and no agent.
"""

from actors.attachment import drift, mount, node_loss, r10_precheck, r11_grant, r12_mount, r13_detach
from actors.attachment.messages import AcknowledgeNodeLost, AttachTo, Detach, RetryDetach
from actors.attachment.state import Attachment, view_attachment
from actors.between import (
    DriftCleared,
    DriftTried,
    GrantGone,
    GrantReady,
    GrantRefused,
    GrantTried,
    LateMount,
    LeaveNode,
    MountGivenUp,
    NodeSuspect,
    RevokeTried,
)
from actors.facts import facts
from amends.domain.kinds import ActorKind, Legal
from amends.turn.decision import Decision
from amends.turn.messages import StepDone, TimerFired, TurnRefused
from amends.values.errors import REQUIREMENT

LOOK_AGAIN_US = 250_000  # while a namespace's first answer is awaited


def _attach(s: Attachment | None, m: AttachTo, d: Decision) -> None:
    asked, namespace = m.asked, facts(d).namespace(m.asked.namespace_id)
    accounts = d.env.command.accounts if d.env.command is not None else ("*",)
    if "*" not in accounts and m.account_id not in accounts:
        d.refuse("forbidden", "this caller may not act for the account this belongs to", field="allocation_id")
    if namespace is None:
        d.refuse("not_found", f"there is no namespace {asked.namespace_id!r}", field="namespace_id")
    d.create(Attachment(
        state="requested", allocation_id=asked.allocation_id, account_id=m.account_id, node_id=m.node_id,
        namespace_id=asked.namespace_id, provider_id=namespace.provider_id, mode=asked.mode,
        mount_path=asked.mount_path, requested_us=d.now_us, trace_id=d.trace_id, span_id=d.span_id,
        timers={"check": d.now_us},
    ))  # fmt: skip


def _check(s: Attachment, d: Decision) -> None:
    """Everything is checked, and reserved if it holds; or looked at again, having been refused by the grant."""
    if s.state == "validated":
        if not s.undo.code:
            _or_refused(s, d)
        return
    if r10_precheck.too_early(s, d):
        d.timer("check", d.now_us + LOOK_AGAIN_US)
        return
    codes = r10_precheck.failing(s, d.id, d)
    if codes:
        r10_precheck.refuse(s, d, codes)
        return
    seen = r10_precheck.look(s, d.id, d)
    node = seen.node
    assert node is not None
    alone = s.mode == "rw" and not seen.can.multi_attach
    d.set(node_epoch=node.epoch)
    r10_precheck.require(d.state, d)
    d.to("validated", attempt_id=d.mint("task"), rw_holder=s.namespace_id if alone else None)
    r11_grant.ask(d.state, d)


def _or_refused(s: Attachment, d: Decision) -> None:
    codes = r10_precheck.failing(s, d.id, d)
    if codes:
        r10_precheck.refuse(s, d, codes)
    else:
        r11_grant.ask(s, d)


def _refused(s: Attachment, m: TurnRefused, d: Decision) -> None:
    """Somebody was faster between the checks and the commit: another writer, or the end of what was required."""
    if s.state == "granted" and m.code != REQUIREMENT:
        d.timer("mount", d.now_us + LOOK_AGAIN_US)
    elif s.state == "granted":
        r13_detach.before_mount(s, d, _left_by(s, d))
    if s.state != "requested":
        return
    codes = r10_precheck.failing(s, d.id, d)
    if codes:
        r10_precheck.refuse(s, d, codes)
    elif m.code == "23505":
        r10_precheck.refuse(s, d, ["namespace_busy"])
    else:
        d.timer("check", d.now_us + LOOK_AGAIN_US)


def _left_by(s: Attachment, d: Decision) -> str:
    """Why its mount task cannot go out: the rental is active no more, or the node is silent, or not in service."""
    allocation, node = facts(d).allocation(s.allocation_id), facts(d).node(s.node_id or "")
    if allocation is None or allocation.state != "active":
        return "release"
    return "node_suspect" if node is None or node.state in ("suspect", "offline") else "node_not_ready"


def _step_done(s: Attachment, m: StepDone, d: Decision) -> None:
    if m.name in (mount.MOUNT, mount.PROBE):
        if s.state == "mounting":
            r12_mount.mounted(s, m, d)
        else:
            r13_detach.note(d, m)
    elif m.name == mount.UNMOUNT:
        if s.state in ("mounting", "failed", "detached"):
            r12_mount.unmounted(s, m, d)
        elif s.state == "detaching":
            r13_detach.unmounted(s, m, d)
        else:
            r13_detach.note(d, m)


def _gone(s: Attachment, m: GrantGone, d: Decision) -> None:
    if m.action_id and m.action_id == s.leaving.fence.action_id:
        node_loss.fenced(s, m, d)
    elif m.action_id != s.leaving.work.action_id:
        return  # the answer to what was asked for before
    elif s.state in ("validated", "granted"):
        r11_grant.gone(s, m, d)
    elif s.state == "mounting":
        r12_mount.gone(s, m, d)
    elif s.state == "detaching":
        r13_detach.gone(s, m, d)


def _node_suspect(s: Attachment, m: NodeSuspect, d: Decision) -> None:
    if s.state == "mounting" and not s.undo.code:
        r12_mount.suspect(s, d)


def _leave_node(s: Attachment, m: LeaveNode, d: Decision) -> None:
    if m.cause == "node_lost":
        node_loss.lost(s, m, d)
    else:
        r13_detach.begin(s, d, m.cause)


def _timer(s: Attachment, m: TimerFired, d: Decision) -> None:
    if m.name == "check" and s.state in ("requested", "validated"):
        _check(s, d)
    elif m.name == "mount":
        r12_mount.begin(s, d)
    elif m.name == "give_up":
        r13_detach.given_up(s, d)


ATTACHMENT = ActorKind(
    name="attachment",
    table="platform_storage_attachments",
    columns={"allocation_id": str, "namespace_id": str, "node_id": str, "account_id": str, "rw_holder": str},
    state_type=Attachment,
    states={
        "requested": "timer check",
        "validated": "message of its grant",
        "granted": "timer mount",
        "mounting": "step agent.mount or agent.probe_mount",
        "attached": "rest",
        "detaching": "step agent.unmount, or message of its grant",
        "detach_failed": "rest",
        "detached": "end",
        "failed": "end",
    },
    transitions={
        ("", "requested"): "command accepted",
        ("requested", "validated"): "all checks hold",
        ("requested", "failed"): "a check fails (R10), or released before",
        ("validated", "granted"): "the provider confirmed the grant",
        ("validated", "failed"): "the provider did not (R11), or released before",
        ("granted", "mounting"): "the mount task is sent",
        ("granted", "failed"): "released or lost before the mount task",
        ("mounting", "attached"): "mounted, and the probe is good",
        ("mounting", "failed"): "task or probe failed (R12)",
        ("mounting", "detaching"): "detach, release, node lost, or it cannot be unmounted",
        ("attached", "detaching"): "detach, release, quota, or node lost",
        ("detaching", "detached"): "unmounted, and access revoked",
        ("detaching", "detach_failed"): "retries exhausted (R13)",
        ("detach_failed", "detaching"): "an operator's word",
    },
    handlers={
        AttachTo: _attach,
        Detach: r13_detach.detach,
        RetryDetach: r13_detach.retry,
        AcknowledgeNodeLost: r13_detach.acknowledge,
        GrantReady: r11_grant.ready,
        GrantRefused: r11_grant.refused,
        GrantTried: r11_grant.tried,
        GrantGone: _gone,
        RevokeTried: r11_grant.kept,
        DriftCleared: drift.cleared,
        DriftTried: drift.tried,
        LeaveNode: _leave_node,
        MountGivenUp: r13_detach.given_up_with_node,
        NodeSuspect: _node_suspect,
        LateMount: r12_mount.late,
        StepDone: _step_done,
        TimerFired: _timer,
        TurnRefused: _refused,
    },
    creates=frozenset({AttachTo}),
    legal={
        RetryDetach: Legal(("detach_failed", *r13_detach.ENDED), "retried"),
        AcknowledgeNodeLost: Legal(("detach_failed", "detaching", *r13_detach.ENDED), "acknowledged"),
    },
    view=view_attachment,
    owner=lambda s: s.account_id,
    owes=drift.owes,
    answers_refusal=lambda message: isinstance(message, TimerFired) and message.name in ("check", "mount"),
)
