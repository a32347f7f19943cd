"""A node's way back from quarantine: its agent's inventory, left-over users removed, and only then `ready`.

By itself a node goes back only when nothing but `offline` or `cleanup_exhausted` stands against it; otherwise an
operator lets it, and then it is probed first: what was against it must be over. What answers is matched to what was
asked by its step, and a node that is no longer on its way is left where it stands. Mounts are the agent's business;
whatever else is found is reported, never touched. After a restore of the database the first inventory is no more than
read (`inventory`), whatever else stands against the node and whoever lets it back.
"""

import re
from typing import Any

from actors.facts import facts
from actors.node import epochs, inventory, left_over, probes
from actors.node.probes import probe
from actors.node.state import SELF_HEALING, Node, Silence, address
from amends.turn.cases import close_case, open_case
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.values.canonical import canonical, sha256

RECONCILE, REMOVE = "agent.reconcile", "ssh.user-remove"
OPEN_UNTIL_BACK = ("node_flapping", "host_key_mismatch", "setup_failing", "identity_conflict")
STALLED_AFTER = 5
REMOVED_AT_ONCE = 32  # the rest shows in the next inventory
CUSTOMER = re.compile(r"am-([0-9a-z]{26})")


def try_return(d: Decision) -> None:
    """Begin the way out of quarantine where nothing stands against it."""
    if d.state.state == "quarantined" and (not facts(d).is_dirty(d.id) or inventory.is_owed(d.state)):
        begin_reconcile(d)


def read_inventory(d: Decision) -> None:
    """Ask for the inventory that a restored node owes; nobody has to let it back for that."""
    if inventory.is_owed(d.state):
        begin_reconcile(d)


def begin_reconcile(d: Decision) -> None:
    """Ask the node's agent to compare what it holds with what is expected."""
    s: Node = d.state
    if s.state != "quarantined" or s.way_back.step or not _on_its_way(s):
        return
    report = {"report_only": True} if inventory.is_owed(s) else {}
    if s.way_back.returning and not report and not s.way_back.reachable:
        probe(d)
        return
    args = {"node_id": d.id, "node_epoch": s.epoch, "expected": _expected(d), **report}
    d.part("way_back", step=d.step(RECONCILE, f"agent:{d.id}", args, attempt=s.way_back.tries + 1))


def want(d: Decision, *, acknowledge_dirty: bool) -> None:
    """An operator lets it back, with what it owes or without."""
    d.part("way_back", returning=True, dirty_acknowledged=acknowledge_dirty)
    d.cancel("reconcile")
    begin_reconcile(d)


def call_off(d: Decision) -> None:
    """Nobody lets it back any more."""
    d.part("way_back", returning=False, dirty_acknowledged=False, reachable=False)


def forget(d: Decision) -> None:
    """What was asked of the machine that it was says nothing any more."""
    d.part("way_back", step="", reachable=False)


def probed(m: StepDone, d: Decision) -> None:
    """The probe of a node that an operator lets back; one that fails leaves it where it is, its cases open."""
    if not d.state.way_back.returning and not inventory.is_owed(d.state):
        return
    if m.ok:
        d.part("way_back", reachable=True)
        begin_reconcile(d)
        return
    evidence = {"probe": m.outcome.code, "message": m.outcome.message[:300]}
    for kind in OPEN_UNTIL_BACK:
        if kind in d.state.cases:
            open_case(d, kind, evidence={**evidence, **address(d.state)}, reason="the probe of its return failed")
    _again(d, evidence)


def reconciled(s: Node, m: StepDone, d: Decision) -> None:
    """The agent's inventory is in, or it did not answer in time."""
    if m.step_id != s.way_back.step:
        return  # it was asked of a machine, or by a registration, that is no more
    d.part("way_back", step="")
    if not _on_its_way(s):
        return
    if m.args["node_epoch"] != s.epoch:
        begin_reconcile(d)
        return
    if not m.ok:
        epochs.catch_up(d, m.outcome)
        _again(d, {"code": m.outcome.code})
        return
    d.audit("node.reconciled", details={"inventory": _digest(m.outcome.data), "report_only": _is_report(m)})
    if _is_report(m):
        _read(d, m.outcome.data)
        return
    left_over.mounts_gone(d, m.outcome.data["mounts"])
    expected = facts(d).expected_users(d.id)
    users = [user for user in m.outcome.data["users"] if CUSTOMER.fullmatch(user) and user not in expected]
    if users:
        _remove(d, users[:REMOVED_AT_ONCE], {})
    else:
        _clean(s, d)


def removed(s: Node, m: StepDone, d: Decision) -> None:
    """A left-over user is gone, or could not be removed; one after the other, then the inventory is read again."""
    user, left, stuck = m.args["user"], m.args["left"], m.args["stuck"]
    if m.ok:
        left_over.removed(d, user, m.ref, m.duration_ms, expected=m.step_id == s.way_back.step)
        d.audit("node.user_removed", f"node:{d.id}/user:{user}", reason="left over")
    else:
        d.audit("node.user_not_removed", f"node:{d.id}/user:{user}", details={"code": m.outcome.code})
        stuck = {**stuck, user: m.outcome.code}
    if m.step_id != s.way_back.step:
        return
    if not _on_its_way(s):
        d.part("way_back", step="")
    elif left:
        _remove(d, left, stuck)
    elif stuck:
        _again(d, {"users": stuck})
    else:
        # Only an inventory without them lets the node back; an agent that goes on naming them is not asked for ever.
        _again(d, {"users": {user: "reported again"}}, soon=True)


def _read(d: Decision, found: dict[str, Any]) -> None:
    """The inventory after a restore. Whoever has let the node back could not know of what is unknown there."""
    if inventory.look(d, found, _expected(d)):
        call_off(d)
        _settle(d)
        return
    s: Node = d.state
    rest = sorted({*s.quarantine_reasons} - {inventory.REASON})
    if not s.way_back.returning and not set(rest) <= SELF_HEALING:
        d.set(quarantine_reasons=rest)
        d.audit("node.inventory_read", details={"quarantine_reasons": rest})
        _settle(d)
    elif not s.way_back.reachable:  # its address may be an old one too
        probe(d)
    else:
        _clean(s, d)


def _is_report(m: StepDone) -> bool:
    return bool(m.args.get("report_only"))


def _expected(d: Decision) -> dict[str, list[str]]:
    return {"mounts": facts(d).expected_mounts(d.id), "users": facts(d).expected_users(d.id)}


def _on_its_way(s: Node) -> bool:
    return s.way_back.returning or inventory.is_owed(s) or set(s.quarantine_reasons) <= SELF_HEALING


def _remove(d: Decision, users: list[str], stuck: dict[str, str]) -> None:
    """Its allocation is not asked: it may have ended long ago, and believes that there is no such user."""
    user, left = users[0], users[1:]
    args: dict[str, Any] = {
        "node_id": d.id, "user": user, "allocation": f"alloc_{user.removeprefix('am-')}", "attempt": "reconcile",
        "left": left, "stuck": stuck,
    }  # fmt: skip
    attempt = d.state.way_back.tries + 1
    d.part("way_back", step=d.step(REMOVE, f"node:{d.id}", args, attempt=attempt, key=f"{d.id}:left-over:{user}"))


def _again(d: Decision, evidence: dict[str, Any], *, soon: bool = False) -> None:
    """Not back yet: ask again later, and call a person when that has gone on for long."""
    tries = d.state.way_back.tries + 1
    d.part("way_back", step="", tries=tries, reachable=soon and d.state.way_back.reachable)
    if tries >= STALLED_AFTER and "reconcile_stalled" not in d.state.cases:
        open_case(d, "reconcile_stalled", evidence={**evidence, "tries": tries})
    if soon and tries < STALLED_AFTER:
        begin_reconcile(d)
    else:
        d.timer("reconcile", d.now_us + d.limits.us("offline_after_ms"))


def _settle(d: Decision) -> None:
    d.part("way_back", tries=0)
    close_case(d, "reconcile_stalled")


def _clean(s: Node, d: Decision) -> None:
    _settle(d)
    if s.way_back.dirty_acknowledged or not facts(d).is_dirty(d.id):
        call_off(d)
        probes.passed(d)
        if not facts(d).is_dirty(d.id):
            left_over.settled(d)
        d.to(
            "draining" if s.drained else "ready", cause="reconciled", drained=False, quarantine_reasons=[], flaps=[],
            setup_fails=[],
            boot_id=facts(d).heard_boot(d.id) or s.boot_id, silence=Silence(),  # silent or not is told anew
        )  # fmt: skip
        for kind in OPEN_UNTIL_BACK:
            close_case(d, kind)
        inventory.gone(d)


def _digest(inventory: dict[str, Any]) -> dict[str, Any]:
    """An inventory as the audit keeps it: how many of each, and a hash. An agent names as much as it likes."""
    counts = {kind: len(names) for kind, names in sorted(inventory.items())}
    return {**counts, "sha256": sha256(canonical(inventory))}
