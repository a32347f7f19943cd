"""A node is lost: silent for too long with its SSH server failing too, or rebooted under a customer (R08).

What is silent is probed; the detector passes the verdict once enough probes have failed and no guard holds it. Its turn
looks again whether the node was heard, raises the epoch, and tells every allocation whose meter that may concern. The
node's run is open until it is back and clean.
"""

from actors.between import LeaveNode, LossConfirmed, NodeLost, NodeSuspect
from actors.facts import facts
from actors.node import probes, reconcile
from actors.node.left_over import STEP, loss_row
from actors.node.messages import HeartbeatSeen, Silent, Verdict
from actors.node.state import Node, Reboot, Silence, address, is_drained
from amends.turn.cases import close_case, open_case
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.notify import notify
from amends.turn.recovery import begin_run, failure

AGENT_SILENT, REBOOT = "agent_silent", "reboot"
AGENT_SILENT_US = 15 * 60_000_000
SILENCED = ("suspect", "quarantined")


def silent(s: Node, m: Silent, d: Decision) -> None:
    """No heartbeat for `suspect_after_ms`: no new customers, no effect on the one there; its SSH server is probed."""
    last_us = max(m.last_us, s.last_heartbeat_us or 0)
    d.set(silence=Silence(last_us=last_us or d.now_us))
    if s.state in ("ready", "draining"):  # of one that an older release suspected the silence was not kept
        d.to("suspect", cause="silent", before_suspect=s.state, last_heartbeat_us=last_us)
        for attachment_id in facts(d).mounting_on(d.id):
            d.tell("attachment", attachment_id, NodeSuspect())
    if s.state != "quarantined":
        d.timer(AGENT_SILENT, d.now_us + AGENT_SILENT_US)
    probes.probe(d)


def probed(s: Node, m: StepDone, d: Decision) -> None:
    """A probe of a silent node has ended; the next one follows, as long as it is silent."""
    enough = d.limits("min_failed_probes")
    failed = 0 if m.ok else min(s.silence.failed + 1, enough)
    d.part("silence", failed=failed)
    grace_us = d.limits.us("offline_after_ms") - d.limits.us("suspect_after_ms")
    wait_us = max(grace_us // (2 * enough), d.limits.us("probe_timeout_ms")) if failed < enough else grace_us
    d.timer("probe", d.now_us + wait_us)


def unheard(s: Node, d: Decision) -> None:
    """It has been suspect for long. With a good SSH server it is its agent that is silent: a person must look."""
    if s.state == "suspect" and not s.silence.failed:
        open_case(d, AGENT_SILENT, evidence={"last_heartbeat_us": s.silence.last_us, **address(s)})
    elif s.state == "suspect":
        d.timer(AGENT_SILENT, d.now_us + AGENT_SILENT_US)


def heard(d: Decision) -> None:
    """It is silent no more."""
    if d.state.silence.last_us:
        d.set(silence=Silence())
        d.cancel(AGENT_SILENT)
        close_case(d, AGENT_SILENT, "its agent is heard again")


def verdict(s: Node, m: Verdict, d: Decision) -> None:
    """The detector's word, which holds as long as the node is silent: looked at again right before the commit (A7)."""
    d.as_of_commit()
    if _is_silent(s, d):
        lose(d, "node_offline", max(m.last_us, s.last_heartbeat_us or 0))


def confirm(s: Node, m: LossConfirmed, d: Decision) -> None:
    """An operator's word stands in for the guards, and for nothing else: the verdict comes when it is due."""
    if s.silence.last_us:
        d.part("silence", confirmed=True)
        d.audit("node.loss_confirmed", reason=m.reason)


def restarted(s: Node, m: HeartbeatSeen, d: Decision) -> None:
    """Another boot id under a customer. It is a reboot if the old one stays away for as long as silence is borne."""
    if s.reboot.boot_id != m.boot_id:
        before_us = s.reboot.before_us or m.before_us or s.last_heartbeat_us or 0
        d.part("reboot", boot_id=m.boot_id, before_us=before_us)
        d.timer(REBOOT, d.now_us + d.limits.us("suspect_after_ms"))


def rebooted(s: Node, d: Decision) -> None:
    """The old boot id has stayed away: its rental ended with its last beat, without probes.

    It must be the new one that is heard, and now: who is not heard, or by whom we hear nobody, is judged another time.
    """
    if not s.reboot.boot_id:
        return
    d.as_of_commit()
    seen_us, grace_us = facts(d).last_seen_us(d.id), d.limits.us("suspect_after_ms")
    if facts(d).heard_boot(d.id) == s.boot_id and seen_us > s.reboot.before_us:
        no_reboot(d)
        return
    if facts(d).heard_boot(d.id) != s.reboot.boot_id or d.now_us - seen_us > grace_us:
        d.timer(REBOOT, d.now_us + grace_us)
        return
    held = facts(d).assignment_of(d.id)
    told = {"boot_id": s.reboot.boot_id, "was": s.boot_id, "allocated_to": held[0] if held else None}
    d.audit("node.rebooted", details=told)
    d.set(boot_id=s.reboot.boot_id)
    lose(d, "node_rebooted", s.reboot.before_us)


def no_reboot(d: Decision) -> None:
    """The old boot id is heard again, or nothing is sure any more."""
    if d.state.reboot.boot_id:
        d.part("reboot", boot_id="", before_us=0)
        d.cancel(REBOOT)


def _is_silent(s: Node, d: Decision) -> bool:
    return bool(s.silence.last_us) and s.silence.failed >= d.limits("min_failed_probes") and not facts(d).is_heard(d.id)


def back(d: Decision) -> None:
    """Heard again: never straight to `ready`. What is owed on it is done first, then it is reconciled."""
    reasons = sorted({*d.state.quarantine_reasons, "offline"})
    d.to("quarantined", cause="heartbeat", quarantine_reasons=reasons)
    notify(d, "node.quarantined", state="quarantined", cause="offline")
    reconcile.try_return(d)


def lose(d: Decision, cause: str, beat_us: int) -> None:
    """The node's own transaction: state, epoch, failure, and a durable message for each allocation concerned."""
    s: Node = d.state
    if s.reboot.boot_id:  # its life under the rental ended before, whatever beats since
        beat_us = min(beat_us, s.reboot.before_us)
    allocations = facts(d).concerned_by_loss(d.id, beat_us)
    epoch = s.epoch
    span = d.did(STEP, 1, False, min(beat_us or d.now_us, d.now_us), cause, "no sign of life")
    d.span_id = span  # what follows of the loss hangs below it, here and with the allocations
    run = begin_run(d, loss_row(d), original=(d.trace_id, span))
    failure_id = failure(
        d, cause, f"the node is lost; last heard at {beat_us}", component=STEP, span_id=span, failure_type="timeout",
        severity="critical", run=run,
    )  # fmt: skip
    run.caused_by(failure_id)
    run.degrade()
    reconcile.call_off(d)
    probes.ended(d)
    d.to(
        "offline", cause=cause, details={"allocations": allocations}, epoch=epoch + 1,
        last_heartbeat_us=beat_us or None, before_suspect="", drained=is_drained(s), silence=Silence(), reboot=Reboot(),
    )  # fmt: skip
    d.cancel("probe", "reconcile", AGENT_SILENT, REBOOT)
    close_case(d, AGENT_SILENT, "the node is offline")
    notify(d, "node.offline", state="offline", cause=cause)
    for allocation_id in allocations:
        d.tell("allocation", allocation_id, NodeLost(d.id, epoch, cause, beat_us, failure_id))
    for attachment_id in _given_up(d):
        d.tell("attachment", attachment_id, LeaveNode("node_lost", failure_id))


def _given_up(d: Decision) -> list[str]:
    """Attachments that no rental tells, since it may be over: given up, or tried again by an operator."""
    known = ((each, facts(d).attachment(each)) for each in facts(d).attachments_on(d.id))
    return [
        each for each, attachment in known
        if attachment is not None and (attachment.state == "detach_failed" or attachment.leaving.cause == "retry")
    ]  # fmt: skip
