"""What operators do to a node, and its ways into quarantine; the way out is `reconcile`."""

from typing import Any

import msgspec

from actors.between import CleanupLost, MountGivenUp, NodeMoved
from actors.facts import facts
from actors.node import epochs, left_over, probes, reconcile
from actors.node.messages import (
    DrainNode,
    QuarantineNode,
    RegisterNode,
    RetireNode,
    ReturnNode,
    UndrainNode,
    UpdateNode,
)
from actors.node.probes import probe
from actors.node.reconcile import begin_reconcile
from actors.node.state import Node, address, is_drained
from amends.turn.cases import close_case, open_case
from amends.turn.decision import Decision
from amends.turn.notify import notify

IN_SERVICE = ("ready", "suspect", "draining")


def register(s: Node | None, m: RegisterNode, d: Decision) -> None:
    """A new node, or a retired id put to use again."""
    if s is not None and s.state != "retired":
        d.refuse("already_exists", f"the node {m.node_id!r} exists", field="node_id")
    _claim_key(m.ssh.host_key, d)
    fresh = Node(
        state="registered", ssh_host=m.ssh.host, ssh_port=m.ssh.port, ssh_host_key=m.ssh.host_key,
        ssh_user=m.ssh.user, labels=m.labels, registered_us=d.now_us,
    )  # fmt: skip
    d.create(msgspec.structs.replace(fresh, epoch=epochs.first(d, s)))


def _claim_key(host_key: str, d: Decision) -> None:
    """One machine is one node: its host key may stand with one only (A1). The database holds it in a race."""
    other = facts(d).node_with_key(host_key)
    if other is not None and other != d.id:
        d.refuse("already_exists", f"the machine with this host key is the node {other!r}", field="ssh.host_key")


def drain(s: Node, m: DrainNode, d: Decision) -> None:
    """No new rentals; what runs goes on. Of a suspect node it is noted for its return."""
    if s.state == "ready":
        d.to("draining", reason=m.reason)
    elif s.state == "suspect":
        d.set(before_suspect="draining")
        d.audit("node.drain", reason=m.reason)


def undrain(s: Node, m: UndrainNode, d: Decision) -> None:
    """Back to ready."""
    if s.state == "suspect" and s.before_suspect == "draining":
        d.set(before_suspect="ready")
        d.audit("node.undrain", reason=m.reason)
    elif s.state == "draining":
        d.to("ready", reason=m.reason)
    elif s.state == "suspect":
        d.refuse("illegal_transition", "a node that is suspect and not drained cannot be undrained", state=s.state)


def ops_quarantine(s: Node, m: QuarantineNode, d: Decision) -> None:
    """An operator takes the node out of service; a running allocation is not touched."""
    quarantine(d, "operator", reason=m.reason)


def quarantine(d: Decision, why: str, *, case: str = "", reason: str = "", evidence: Any = None) -> None:
    """Add a reason; into quarantine if it is not there yet. A way back under way ends: it was begun without it."""
    s: Node = d.state
    reasons = sorted({*s.quarantine_reasons, why})
    if s.state != "quarantined":
        reconcile.call_off(d)
        if s.state == "offline":
            reasons = sorted({*reasons, "offline"})
        drained = is_drained(s)
        d.to("quarantined", cause=why, reason=reason, before_suspect="", drained=drained, quarantine_reasons=reasons)
        notify(d, "node.quarantined", state="quarantined", cause=why)
    elif reason or s.way_back.returning or why not in s.quarantine_reasons:  # an operator's word is audited in any case
        reconcile.call_off(d)
        d.set(quarantine_reasons=reasons)
        d.audit("node.quarantine_reason", reason=reason, details={"cause": why, "was_returning": s.way_back.returning})
        d.cancel("reconcile")
        close_case(d, "reconcile_stalled", "the node is no longer on its way back")
        reconcile.read_inventory(d)
    if case and case not in d.state.cases:
        open_case(d, case, evidence={**(evidence or {}), **address(d.state)})


def return_to_service(s: Node, m: ReturnNode, d: Decision) -> None:
    """An operator lets the node out of quarantine; it is probed and reconciled first, now and until that goes well.

    Into service, even where it had been drained before it came there: this is an operator's later word.
    """
    if facts(d).is_dirty(d.id) and not m.acknowledge_dirty:
        d.refuse("debt_open", "the node still owes cleanups; settle them or pass acknowledge_dirty", field="node_id")
    d.audit("node.return_to_service", reason=m.reason, details={"acknowledge_dirty": m.acknowledge_dirty})
    d.set(drained=False)
    reconcile.want(d, acknowledge_dirty=m.acknowledge_dirty)


def retire(s: Node, m: RetireNode, d: Decision) -> None:
    """Out of the fleet for good; the id may be registered again."""
    if facts(d).assignment_of(d.id) is not None:
        d.refuse("illegal_transition", "an allocation still lives on this node", field="node_id")
    if facts(d).attachments_on(d.id):
        d.refuse("illegal_transition", "an attachment of this node has not ended", field="node_id")
    debtors, mounts = facts(d).debtors(d.id), facts(d).owed_mounts(d.id)
    if (debtors or mounts) and not m.acknowledge_lost:
        d.refuse("debt_open", "the node still owes cleanups; settle them or pass acknowledge_lost", field="node_id")
    reconcile.call_off(d)
    reconcile.forget(d)
    probes.ended(d)
    left_over.settled(d)
    d.to("retired", reason=m.reason, details={"acknowledge_lost": m.acknowledge_lost}, quarantine_reasons=[])
    d.cancel("probe", "reconcile", "agent_silent", "reboot")
    for key in list(s.cases):
        kind, _, target = key.partition(" ")
        close_case(d, kind, m.reason, target)
    for allocation_id in debtors:
        d.tell("allocation", allocation_id, CleanupLost(m.reason))
    for attachment_id in mounts:
        d.tell("attachment", attachment_id, MountGivenUp(m.reason))


def update(s: Node, m: UpdateNode, d: Decision) -> None:
    """A re-imaged or moved machine: new address, host key or labels; a new probe follows."""
    changes: dict[str, Any] = {}
    if m.labels is not None:
        changes["labels"] = m.labels
    if m.ssh is not None:
        _claim_key(m.ssh.host_key, d)
        changes |= {
            "ssh_host": m.ssh.host, "ssh_port": m.ssh.port, "ssh_host_key": m.ssh.host_key, "ssh_user": m.ssh.user,
        }  # fmt: skip
    if not changes:
        d.refuse("invalid_request", "nothing to update: give ssh or labels", field="ssh")
    d.set(**changes)
    d.audit("node.update", reason=m.reason, details={"fields": sorted(changes)})
    held = facts(d).assignment_of(d.id)
    if m.ssh is not None and held is not None:
        d.tell("allocation", held[0], NodeMoved(m.ssh.host, m.ssh.port, m.ssh.host_key))
    if m.ssh is not None:  # what was asked of the old machine says nothing about this one
        probes.moved(d, unproven=s.state in IN_SERVICE)
        reconcile.forget(d)
        probe(d)
        if s.way_back.step:
            begin_reconcile(d)
