"""A node's way back from quarantine: its agent's inventory, left-over users removed, and only then `ready`.

By itself a node goes back only when nothing but `offline` or `cleanup_exhausted` stands against it; otherwise an
operator lets it, and then it is probed first: what was against it must be over. What answers is matched to what was
asked by its step, and a node that is no longer on its way is left where it stands. Mounts are the agent's business;
whatever else is found is reported, never touched.
"""

import re
from typing import Any

from actors.facts import facts
from actors.node.state import SELF_HEALING, Node, address
from amends.turn.cases import close_case, open_case
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.values.canonical import canonical, sha256

PROBE, RECONCILE, REMOVE = "ssh.probe", "agent.reconcile", "ssh.user-remove"
OPEN_UNTIL_BACK = ("node_flapping", "host_key_mismatch", "setup_failing", "identity_conflict")
STALLED_AFTER = 5
REMOVED_AT_ONCE = 32  # the rest shows in the next inventory
CUSTOMER = re.compile(r"am-([0-9a-z]{26})")


def try_return(d: Decision) -> None:
    """Begin the way out of quarantine where nothing stands against it."""
    if not facts(d).is_dirty(d.id):
        begin_reconcile(d)


def begin_reconcile(d: Decision) -> None:
    """Ask the node's agent to compare what it holds with what is expected."""
    s: Node = d.state
    if s.state != "quarantined" or s.reconciling or not _on_its_way(s):
        return
    if s.returning and not s.reachable:
        probe(d)
        return
    expected = {"mounts": [], "users": facts(d).expected_users(d.id)}
    args = {"node_id": d.id, "node_epoch": s.epoch, "expected": expected}
    d.set(reconciling=d.step(RECONCILE, f"agent:{d.id}", args, attempt=s.reconcile_tries + 1))


def probe(d: Decision) -> None:
    """Try the node's SSH server, unless that is under way."""
    s: Node = d.state
    if not s.probing:
        d.set(probing=d.step(PROBE, f"node:{d.id}", {"node_id": d.id}, attempt=s.probe_tries + 1))


def probed(m: StepDone, d: Decision) -> None:
    """The probe of a node that an operator lets back; one that fails leaves it where it is, its cases open."""
    if not d.state.returning:
        return
    if m.ok:
        d.set(reachable=True)
        begin_reconcile(d)
        return
    evidence = {"probe": m.outcome.code, "message": m.outcome.message[:300]}
    for kind in OPEN_UNTIL_BACK:
        if kind in d.state.cases:
            open_case(d, kind, evidence={**evidence, **address(d.state)}, reason="the probe of its return failed")
    _again(d, evidence)


def reconciled(s: Node, m: StepDone, d: Decision) -> None:
    """The agent's inventory is in, or it did not answer in time."""
    if m.step_id != s.reconciling:
        return  # it was asked of a machine, or by a registration, that is no more
    d.set(reconciling="")
    if not _on_its_way(s):
        return
    if m.args["node_epoch"] != s.epoch:
        begin_reconcile(d)
        return
    if not m.ok:
        _again(d, {"code": m.outcome.code})
        return
    d.audit("node.reconciled", details={"inventory": _digest(m.outcome.data)})
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
        d.audit("node.user_removed", f"node:{d.id}/user:{user}", reason="left over")
    else:
        d.audit("node.user_not_removed", f"node:{d.id}/user:{user}", details={"code": m.outcome.code})
        stuck = {**stuck, user: m.outcome.code}
    if m.step_id != s.reconciling:
        return
    if not _on_its_way(s):
        d.set(reconciling="")
    elif left:
        _remove(d, left, stuck)
    elif stuck:
        _again(d, {"users": stuck})
    else:
        # Only an inventory without them lets the node back; an agent that goes on naming them is not asked for ever.
        _again(d, {"users": {user: "reported again"}}, soon=True)


def _on_its_way(s: Node) -> bool:
    return s.returning or set(s.quarantine_reasons) <= SELF_HEALING


def _remove(d: Decision, users: list[str], stuck: dict[str, str]) -> None:
    """Its allocation is not asked: it may have ended long ago, and believes that there is no such user."""
    user, left = users[0], users[1:]
    args: dict[str, Any] = {
        "node_id": d.id, "user": user, "allocation": f"alloc_{user.removeprefix('am-')}", "attempt": "reconcile",
        "left": left, "stuck": stuck,
    }  # fmt: skip
    attempt = d.state.reconcile_tries + 1
    d.set(reconciling=d.step(REMOVE, f"node:{d.id}", args, attempt=attempt, key=f"{d.id}:left-over:{user}"))


def _again(d: Decision, evidence: dict[str, Any], *, soon: bool = False) -> None:
    """Not back yet: ask again later, and call a person when that has gone on for long."""
    tries = d.state.reconcile_tries + 1
    d.set(reconciling="", reconcile_tries=tries, reachable=soon and d.state.reachable)
    if tries >= STALLED_AFTER and "reconcile_stalled" not in d.state.cases:
        open_case(d, "reconcile_stalled", evidence={**evidence, "tries": tries})
    if soon and tries < STALLED_AFTER:
        begin_reconcile(d)
    else:
        d.timer("reconcile", d.now_us + d.limits.us("offline_after_ms"))


def _clean(s: Node, d: Decision) -> None:
    d.set(reconcile_tries=0)
    close_case(d, "reconcile_stalled")
    if s.dirty_acknowledged or not facts(d).is_dirty(d.id):
        d.to(
            "ready", cause="reconciled", quarantine_reasons=[], returning=False, flaps=[], dirty_acknowledged=False,
            setup_fails=[], reachable=False, unproven=False, probe_tries=0,
            boot_id=facts(d).heard_boot(d.id) or s.boot_id,
        )  # fmt: skip
        for kind in OPEN_UNTIL_BACK:
            close_case(d, kind)


def _digest(inventory: dict[str, Any]) -> dict[str, Any]:
    """An inventory as the audit keeps it: how many of each, and a hash. An agent names as much as it likes."""
    counts = {kind: len(names) for kind, names in sorted(inventory.items())}
    return {**counts, "sha256": sha256(canonical(inventory))}
