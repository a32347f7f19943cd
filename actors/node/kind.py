"""The node actor: heard, probed, ready; suspect when silent; offline when lost; quarantined when it cannot be trusted.

Its automaton. What operators do to it stands in `operations`, silence and loss in `r08_offline`, its way back in
`reconcile`. It learns of heartbeats only when something changes.
"""

from actors import differences
from actors.between import DebtSettled, LossConfirmed, MountLeft, SetupFailed, SetupWorked, Suspicion
from actors.differences import LookAround
from actors.facts import facts
from actors.node import left_over, operations, probes, r08_offline, reconcile, restored, world
from actors.node.messages import (
    DrainNode,
    HeartbeatSeen,
    QuarantineNode,
    RegisterNode,
    Reprobe,
    Restored,
    RetireNode,
    ReturnNode,
    Silent,
    UndrainNode,
    UpdateNode,
    Verdict,
)
from actors.node.probes import PROBE, probe
from actors.node.state import Node, view_node
from actors.node.upgrades import in_parts
from amends.domain.kinds import ActorKind, Legal
from amends.turn.decision import Decision
from amends.turn.messages import StepDone, TimerFired

LIVING = ("registered", *operations.IN_SERVICE, "quarantined", "offline")


def _heard(s: Node, m: HeartbeatSeen, d: Decision) -> None:
    r08_offline.heard(d)
    if s.state == "offline":
        d.set(boot_id=m.boot_id, last_heartbeat_us=m.at_us)
        r08_offline.back(d)
        return
    if "identity_conflict" in s.quarantine_reasons:
        return  # it is known; whose heartbeat this is nobody can tell
    if m.rival:
        _two_machines(s, m, d)
        return
    if s.boot_id is not None and m.boot_id != s.boot_id and _rebooted(s, m, d):
        return
    r08_offline.no_reboot(d)
    d.set(boot_id=m.boot_id, last_heartbeat_us=m.at_us)
    if s.state == "registered":
        probe(d)
    elif s.state == "suspect":
        _back(d)
    elif s.state == "quarantined":
        reconcile.read_inventory(d)


def _rebooted(s: Node, m: HeartbeatSeen, d: Decision) -> bool:
    """Another boot id; True if that may end its rental: the node is known by the old one until that is sure."""
    held = facts(d).assignment_of(d.id)
    if held is None:
        return False
    told = {"boot_id": m.boot_id, "was": s.boot_id}
    if held[1] == "reserved":  # the machine under a set-up is a new one: the reservation's epoch no longer fits (R02)
        d.set(epoch=s.epoch + 1)
        d.audit("node.rebooted", details={**told, "reserved_by": held[0]})
        return False
    r08_offline.restarted(s, m, d)
    return True


def _two_machines(s: Node, m: HeartbeatSeen, d: Decision) -> None:
    """Boot ids that alternate are no reboots: two machines claim the name. What runs on the node goes on."""
    r08_offline.no_reboot(d)
    d.set(last_heartbeat_us=m.at_us)
    evidence = {"boot_ids": sorted((m.boot_id, m.rival))}
    operations.quarantine(d, "identity_conflict", case="identity_conflict", evidence=evidence)


def _setup_failed(s: Node, m: SetupFailed, d: Decision) -> None:
    """Customer after customer fails on it: a bad node must not eat a queue of them."""
    fails = [*s.setup_fails, m.allocation_id]
    d.set(setup_fails=fails)
    if len(fails) >= d.limits("setup_fail_limit"):
        d.set(setup_fails=[])
        evidence = {"allocations": fails, "code": m.code}
        operations.quarantine(d, "setup_failing", case="setup_failing", evidence=evidence)


def _setup_worked(s: Node, m: SetupWorked, d: Decision) -> None:
    if s.setup_fails:
        d.set(setup_fails=[])


def _back(d: Decision) -> None:
    """From suspect to where it was; too many of these in a window are flapping."""
    s: Node = d.state
    since = d.now_us - d.limits.us("flap_window_ms")
    flaps = [at for at in s.flaps if at > since] + [d.now_us]
    d.set(flap_count=s.flap_count + 1, flaps=flaps)
    if len(flaps) >= d.limits("flap_limit"):
        operations.quarantine(d, "flapping", case="node_flapping", evidence={"flaps": len(flaps)})
    else:
        d.to(s.before_suspect or "ready", cause="heartbeat", before_suspect="")
        if s.probes.unproven:
            probe(d)


def _suspicion(s: Node, m: Suspicion, d: Decision) -> None:
    case = "host_key_mismatch" if m.reason == "host_key_mismatch" else ""
    operations.quarantine(d, m.reason, case=case)


def _debt_settled(s: Node, m: DebtSettled, d: Decision) -> None:
    left_over.user_gone(d, m)
    if s.state in operations.IN_SERVICE and not facts(d).is_dirty(d.id):  # it was returned with what it owed
        left_over.settled(d)
    reconcile.try_return(d)


def _mount_left(s: Node, m: MountLeft, d: Decision) -> None:
    left_over.mount_left(d, m)


def _step_done(s: Node, m: StepDone, d: Decision) -> None:
    if m.name == reconcile.RECONCILE:
        reconcile.reconciled(s, m, d)
    elif m.name == reconcile.REMOVE:
        reconcile.removed(s, m, d)
    elif m.name == world.STEP:
        world.seen(s, m, d)
    elif m.name == PROBE and m.step_id == s.probes.step:
        _probed(s, m, d)


def _probed(s: Node, m: StepDone, d: Decision) -> None:
    probes.ended(d)
    if m.outcome.code == "ssh_host_key_mismatch":
        probes.failed(d, 0)
        operations.quarantine(d, "host_key_mismatch", case="host_key_mismatch")
    if s.silence.last_us:
        r08_offline.probed(s, m, d)
    if m.outcome.code == "ssh_host_key_mismatch":
        return
    if s.state == "registered":
        _first_probe(s, m, d)
    elif d.state.state == "quarantined":
        reconcile.probed(m, d)
    elif s.state in operations.IN_SERVICE and not s.silence.last_us:
        _probed_again(s, m, d)


def _first_probe(s: Node, m: StepDone, d: Decision) -> None:
    probes.failed(d, 0 if m.ok else s.probes.tries + 1)
    if not m.ok:
        d.timer("probe", d.now_us + d.limits.us("suspect_after_ms"))
    elif s.boot_id is not None:  # else it is probed again when it is heard
        restored.registered(d)


def _probed_again(s: Node, m: StepDone, d: Decision) -> None:
    """Of a node in service: as many failures in a row as of set-ups take it out, unless we may be cut off ourselves.

    What is suspect is silent, and judged by that; a new address is tried again when it is heard.
    """
    if not m.ok and s.state == "suspect":
        return
    if m.ok or _is_taken(s, d):
        if s.probes.tries or s.probes.unproven:
            probes.passed(d)
        return
    tries, first_us = s.probes.tries + 1, s.probes.failed_us if s.probes.tries else d.now_us
    probes.failed(d, tries, first_us)
    limit = d.limits("setup_fail_limit")
    if tries >= limit and (s.probes.unproven or facts(d).ssh_works_elsewhere(d.id, first_us)):
        probes.passed(d)
        evidence = {"probes": tries, "code": m.outcome.code, "message": m.outcome.message[:300]}
        operations.quarantine(d, "setup_failing", case="setup_failing", evidence=evidence)
    else:
        d.timer("probe", d.now_us + d.limits.us("suspect_after_ms"))


def _is_taken(s: Node, d: Decision) -> bool:
    """A customer's node is not looked at by probes, unless nobody has been let in at its new address yet."""
    return not s.probes.unproven and facts(d).assignment_of(d.id) is not None


def _reprobe(s: Node, m: Reprobe, d: Decision) -> None:
    if not s.probes.tries and not _is_taken(s, d):
        probe(d)


def _timer(s: Node, m: TimerFired, d: Decision) -> None:
    if m.name == "reconcile":
        reconcile.begin_reconcile(d)
    elif m.name == r08_offline.AGENT_SILENT:
        r08_offline.unheard(s, d)
    elif m.name == r08_offline.REBOOT:
        r08_offline.rebooted(s, d)
    elif s.silence.last_us:
        probe(d)
    elif s.state == "registered":
        if facts(d).is_heard(d.id):
            probe(d)
    elif s.state in ("ready", "draining") and s.probes.tries:
        if _is_taken(s, d):
            probes.failed(d, 0)
        else:
            probe(d)


NODE = ActorKind(
    name="node",
    table="nodes",
    columns={"ssh_host_key": str},
    state_type=Node,
    states={
        "registered": "rest",
        "ready": "rest",
        "suspect": "rest",
        "draining": "rest",
        "offline": "rest",
        "quarantined": "rest",
        "retired": "end",
    },
    transitions={
        ("", "registered"): "node.register",
        ("registered", "ready"): "a heartbeat and a good SSH probe",
        ("ready", "suspect"): "no heartbeat for suspect_after_ms",
        ("draining", "suspect"): "no heartbeat for suspect_after_ms",
        ("suspect", "ready"): "heartbeat with the same boot id",
        ("suspect", "draining"): "heartbeat with the same boot id",
        ("ready", "draining"): "ops.node.drain",
        ("draining", "ready"): "ops.node.undrain",
        ("registered", "quarantined"): "host key mismatch, identity conflict, database restored, ops.node.quarantine",
        ("ready", "quarantined"): (
            "exhausted cleanup, host key mismatch, failing set-ups or probes, identity conflict, database restored, "
            "ops.node.quarantine"
        ),
        ("suspect", "quarantined"): (
            "flapping, exhausted cleanup, host key mismatch, failing set-ups, identity conflict, database restored, "
            "ops.node.quarantine"
        ),
        ("draining", "quarantined"): (
            "exhausted cleanup, host key mismatch, failing set-ups or probes, identity conflict, database restored, "
            "ops.node.quarantine"
        ),
        ("quarantined", "ready"): "reconciled; ops.node.return_to_service",
        ("quarantined", "draining"): "reconciled, where it was drained before",
        ("suspect", "offline"): "silent for offline_after_ms, probes failed, no guard (R08); rebooted under a customer",
        ("quarantined", "offline"): "silent for offline_after_ms, probes failed, no guard (R08); rebooted",
        ("ready", "offline"): "rebooted under a customer (R08)",
        ("draining", "offline"): "rebooted under a customer (R08)",
        ("offline", "quarantined"): "a heartbeat; ops.node.quarantine, host key mismatch",
        ("offline", "retired"): "ops.node.retire",
        ("quarantined", "retired"): "ops.node.retire",
        ("registered", "retired"): "ops.node.retire",
    },
    handlers={
        RegisterNode: operations.register,
        HeartbeatSeen: _heard,
        Silent: r08_offline.silent,
        Verdict: r08_offline.verdict,
        LossConfirmed: r08_offline.confirm,
        Reprobe: _reprobe,
        LookAround: world.look,
        Restored: restored.restored,
        Suspicion: _suspicion,
        SetupFailed: _setup_failed,
        SetupWorked: _setup_worked,
        DebtSettled: _debt_settled,
        MountLeft: _mount_left,
        DrainNode: operations.drain,
        UndrainNode: operations.undrain,
        QuarantineNode: operations.ops_quarantine,
        ReturnNode: operations.return_to_service,
        RetireNode: operations.retire,
        UpdateNode: operations.update,
        StepDone: _step_done,
        TimerFired: _timer,
    },
    creates=frozenset({RegisterNode}),
    legal={
        HeartbeatSeen: Legal(LIVING),
        Silent: Legal(("ready", "draining", "suspect", "quarantined")),
        Verdict: Legal(r08_offline.SILENCED),
        LossConfirmed: Legal(r08_offline.SILENCED),
        Reprobe: Legal(("ready",)),
        LookAround: Legal(world.LOOKED_AT),
        Restored: Legal(LIVING),
        Suspicion: Legal(LIVING),
        SetupFailed: Legal(LIVING),
        DrainNode: Legal(operations.IN_SERVICE, "drained"),
        UndrainNode: Legal(operations.IN_SERVICE, "undrained"),
        QuarantineNode: Legal(LIVING, "quarantined"),
        ReturnNode: Legal(("quarantined",), "returned to service"),
        RetireNode: Legal(("quarantined", "offline", "registered"), "retired"),
        UpdateNode: Legal(LIVING, "updated"),
    },
    upgrades=(in_parts,),
    view=view_node,
    resolved=lambda s, m, d: differences.resolved(d, m),
)
