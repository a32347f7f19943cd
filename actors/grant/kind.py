"""The grant actor: access of one node to one namespace, counted by attachment, verified after grant and after revoke.

It alone asks the provider, so that two attachments of the pair never undo one another's. What its work comes to is told
to the attachments, whose runs record it.
"""

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from actors.attachment import r10_precheck
from actors.between import (
    Drifted,
    GrantGone,
    GrantReady,
    GrantReconciled,
    GrantRefused,
    GrantTried,
    LeaveGrant,
    ReconcileGrant,
    RevokeTried,
    UseGrant,
    Work,
)
from actors.facts import facts
from actors.grant.state import COVERS, GrantState, Held
from actors.tables import GrantRow
from amends.domain.kinds import ActorKind
from amends.turn.decision import Decision
from amends.turn.messages import StepDone, TurnRefused
from amends.turn.recovery import failure_of

GRANT, VERIFY, REVOKE = "provider.grant", "provider.verify", "provider.revoke"
BLOCKED = "blocked_by_drift"


def _use(s: GrantState | None, m: UseGrant, d: Decision) -> None:
    """Access for one more attachment, if all that it was checked for is still so in this very transaction (R10)."""
    if s is not None and s.state == "held" and m.attachment_id in s.users:
        return
    if s is not None and any(held.state == "drift" for held in s.held):
        d.tell("attachment", m.attachment_id, GrantRefused([BLOCKED]))
        return
    attachment = facts(d).attachment(m.attachment_id)
    codes = r10_precheck.failing(attachment, m.attachment_id, d, again=True) if attachment is not None else []
    if codes:
        d.tell("attachment", m.attachment_id, GrantRefused(codes))
        return
    d.require("namespace", m.namespace_id, ("active",))
    d.require("allocation", m.allocation_id, ("active",))
    d.require("node", m.node_id, ("ready",), m.node_epoch)
    if s is None or s.state == "idle":
        d.create(GrantState(
            state="held", namespace_id=m.namespace_id, node_id=m.node_id, provider_id=m.provider_id
        ))  # fmt: skip
    own: GrantState = d.state
    d.set(users={**own.users, m.attachment_id: m.mode}, waiting=(*own.waiting, m.attachment_id))
    _serve(d)


def _refused(s: GrantState | None, m: TurnRefused, d: Decision) -> None:
    d.tell("attachment", m.message.attachment_id, GrantRefused([]))


def _serve(d: Decision) -> None:
    """Whoever waits and is covered gets it; for the others a grant is asked for, once what ends has ended."""
    s: GrantState = d.state
    for attachment_id in s.waiting:
        covers = [held for held in s.held if held.mode in COVERS[s.users[attachment_id]]]
        ready = next((held for held in covers if held.state == "granted"), None)
        if ready is not None:
            d.set(waiting=tuple(each for each in d.state.waiting if each != attachment_id))
            d.tell("attachment", attachment_id, GrantReady(ready.grant_id, ready.source))
    left: GrantState = d.state
    wanted = [left.users[each] for each in left.waiting]
    busy = [held for held in left.held if held.state in ("intended", "revoking")]
    if wanted and not busy:
        _ask(d, "rw" if "rw" in wanted else "ro")


def _ask(d: Decision, mode: str) -> None:
    s: GrantState = d.state
    node = facts(d).node(s.node_id)
    held = Held(d.mint("grant"), mode, "intended", tries=1, address=node.ssh_host if node is not None else "")
    d.set(held=(*s.held, held))
    _row(d, held)
    _try(d, GRANT, held)


def _leave(s: GrantState | None, m: LeaveGrant, d: Decision) -> None:
    """One attachment less: what nobody of the pair needs any more is taken back; with the loss of the node, all."""
    if s is None or s.state == "idle" or not s.held:
        d.tell("attachment", m.attachment_id, GrantGone("none", action_id=m.work.action_id))
        return
    users = {key: mode for key, mode in s.users.items() if key != m.attachment_id}
    d.set(users=users, waiting=tuple(each for each in s.waiting if each != m.attachment_id))
    shared = bool(users) and not m.fence
    left: GrantState = d.state
    surplus = [held for held in s.held if not (shared and _needed(left, held)) or (m.again and held.state == "drift")]
    stuck = [held for held in s.held if held.state == "drift"]
    if shared and not surplus:
        d.tell("attachment", m.attachment_id, GrantGone("shared", action_id=m.work.action_id))
    elif len(stuck) == len(s.held) and not m.again:
        gone = GrantGone("failed", stuck[0].grant_id, stuck[0].made_by, code=BLOCKED, action_id=m.work.action_id)
        _flag(d, stuck[0])
        d.tell("attachment", m.attachment_id, gone)
    else:
        d.set(leaving={**s.leaving, m.attachment_id: m.work})
        _take_back(d, m.work, surplus, drifted=m.again)


def _needed(s: GrantState, held: Held) -> bool:
    """Whether those that are left need it: not what is asked for in vain, nor a writer's access that readers have left.

    A reader that came before the writer has access of its own; one that came after shares the writer's.
    """
    if held.state == "intended":
        return bool(s.waiting) and not held.over
    reading = any(each.mode == "ro" and each.state == "granted" for each in s.held)
    return held.state != "granted" or held.mode == "ro" or "rw" in s.users.values() or not reading


def _reconcile(s: GrantState | None, m: ReconcileGrant, d: Decision) -> None:
    """An operator's word: what drifted is taken back, with a new budget."""
    if s is None or s.state == "idle" or not s.held:
        namespace_id, _, node_id = d.id.rpartition(".")
        d.tell("namespace", namespace_id, GrantReconciled(node_id, GrantGone("none")))
        return
    d.set(leaving={**s.leaving, "": m.work})
    _take_back(d, m.work, [held for held in s.held if held.state == "drift" or not s.users], drifted=True)


def _take_back(d: Decision, work: Work, which: Iterable[Held], *, drifted: bool = False) -> None:
    """Those of them that stand; what drifted has all its tries again where it is asked for."""
    for held in which:
        if held.state in ("intended", "granted") or (drifted and held.state == "drift"):
            again = replace(held, state="revoking", tries=1)
            _put(d, again)
            _try(d, REVOKE, again, work=work)


# --- what the provider says ------------------------------------------------------------------------------


def _step_done(s: GrantState, m: StepDone, d: Decision) -> None:
    held = next((each for each in s.held if each.grant_id == m.args["grant_id"]), None)
    if held is None:
        if not m.ok:
            failure_of(d, m)
        return
    if held.state == "intended" and m.name in (GRANT, VERIFY):
        _granted(m, d, held)
    elif held.state == "revoking" and m.name in (REVOKE, VERIFY):
        _revoked(s, m, d, held)
    elif not m.ok:
        failure_of(d, m)


def _granted(m: StepDone, d: Decision, held: Held) -> None:
    """Grant, then verify; what failed is tried again within its budget, and then given up by whoever waits for it."""
    if m.name == GRANT:
        held = replace(held, made_by=held.made_by or m.ref)
        _put(d, held)
    if m.ok and m.name == GRANT:
        _put(d, replace(held, source=dict(m.outcome.data.get("source") or {})))
        _try(d, VERIFY, held)
        return
    good = m.ok and bool(m.outcome.data.get("granted")) and m.outcome.data.get("mode", held.mode) in COVERS[held.mode]
    if good:
        done = replace(held, state="granted")
        _put(d, done)
        _row(d, done)
        _serve(d)
        return
    code = m.outcome.code if not m.ok else "not_granted"
    final = not m.ok and m.outcome.kind == "failed" and m.outcome.data.get("retryable") is False
    over = final or held.tries >= d.limits("grant_tries")
    _told(d, m, held, code, over=over)
    if over:
        _put(d, replace(held, over=True))
        d.set(waiting=tuple(each for each in d.state.waiting if d.state.users[each] not in _covered_by(held)))
    else:
        again = replace(held, tries=held.tries + 1)
        _put(d, again)
        _try(d, GRANT, again, after_us=d.limits.delay_us("provider_backoff_ms", held.tries, d.id))


def _covered_by(held: Held) -> list[str]:
    return [mode for mode, covering in COVERS.items() if held.mode in covering]


def _told(d: Decision, m: StepDone, held: Held, code: str, *, over: bool) -> None:
    """All that wait for it hear of the failed try."""
    tried = GrantTried(
        held.grant_id, m.name, held.tries, m.step_id, code, m.outcome.message[:500], m.trace_id, m.span_id,
        m.started_us, m.ended_us, over,
    )  # fmt: skip
    concerned = [each for each in d.state.waiting if d.state.users[each] in _covered_by(held)]
    for attachment_id in concerned:
        d.tell("attachment", attachment_id, tried)
    if not concerned:
        failure_of(d, m)


def _revoked(s: GrantState, m: StepDone, d: Decision, held: Held) -> None:
    """Revoke, then verify: only a provider that says that there is no access any more is believed.

    A revoke that was not answered may have been done: that is asked before it is tried again.
    """
    work = next(iter(s.leaving.values()), Work())
    if m.name == REVOKE and (m.ok or m.outcome.kind == "unknown"):
        if not m.ok:
            failure_of(d, m)
        _try(d, VERIFY, held, work=work)
        return
    if m.ok and not m.outcome.data.get("granted"):
        d.set(held=tuple(each for each in s.held if each.grant_id != held.grant_id))
        d.undone(REVOKE, m.target)
        _row(d, held, "revoked")
        _ended(d, held, GrantGone(
            "revoked", held.grant_id, held.made_by, m.duration_ms, m.started_us, m.ended_us, tries=held.tries,
        ))  # fmt: skip
        return
    code = m.outcome.code if not m.ok else "still_granted"
    failure_id = failure_of(d, m) if not m.ok else ""
    if held.tries < d.limits("revoke_tries"):
        _tell_try(d, RevokeTried(
            s.node_id, held.grant_id, held.tries, code, failure_id, m.trace_id, m.span_id, m.started_us, m.ended_us,
        ))  # fmt: skip
        again = replace(held, tries=held.tries + 1)
        _put(d, again)
        wait_us = d.limits.delay_us("provider_backoff_ms", held.tries, d.id)
        _try(d, REVOKE, again, after_us=wait_us, work=work)
        return
    stuck = replace(held, state="drift")
    _put(d, stuck)
    _row(d, stuck)
    _flag(d, stuck)
    _ended(d, stuck, GrantGone(
        "failed", held.grant_id, held.made_by, m.duration_ms, m.started_us, m.ended_us, code, tries=held.tries,
    ))  # fmt: skip


def _tell_try(d: Decision, tried: RevokeTried) -> None:
    """All that wait for the end hear of the failed try, for each has a run of its own (rule 8)."""
    s: GrantState = d.state
    for attachment_id, work in s.leaving.items():
        if attachment_id:
            d.tell("attachment", attachment_id, replace(tried, action_id=work.action_id))
        else:
            d.tell("namespace", s.namespace_id, tried)


def _flag(d: Decision, stuck: Held) -> None:
    """The namespace shows it from now on, and blocks the pair."""
    s: GrantState = d.state
    d.set(flagged=True)
    d.tell("namespace", s.namespace_id, Drifted(s.node_id, stuck.grant_id))


def _ended(d: Decision, held: Held, gone: GrantGone) -> None:
    """Once none is being taken back any more, everybody who waits for that hears how it ended."""
    s: GrantState = d.state
    if any(each.state == "revoking" for each in s.held):
        return
    stuck = next((each for each in s.held if each.state == "drift"), None)
    if stuck is not None and gone.result == "revoked":
        gone = replace(gone, result="failed", grant_id=stuck.grant_id, made_by=stuck.made_by, code="still_granted")
    for attachment_id, work in s.leaving.items():
        if attachment_id:
            d.tell("attachment", attachment_id, replace(gone, action_id=work.action_id))
    if "" in s.leaving or (s.flagged and stuck is None):
        d.tell("namespace", s.namespace_id, GrantReconciled(s.node_id, gone))
    d.set(leaving={}, flagged=s.flagged and stuck is not None)
    if s.waiting and stuck is None:
        _serve(d)
    elif s.waiting:
        for attachment_id in s.waiting:
            d.tell("attachment", attachment_id, GrantRefused([BLOCKED]))
        d.set(waiting=(), users={key: mode for key, mode in s.users.items() if key not in s.waiting})
    elif not s.held:
        d.to("idle", users={})


# --- steps and rows ----------------------------------------------------------------------------------------


def _try(d: Decision, name: str, held: Held, *, after_us: int = 0, work: Work = Work()) -> None:  # noqa: B008
    s: GrantState = d.state
    args: dict[str, Any] = {
        "provider_id": s.provider_id, "namespace_id": s.namespace_id, "grant_id": held.grant_id, "node_id": s.node_id,
    }  # fmt: skip
    if name == GRANT:
        args |= {"node_address": held.address, "mode": held.mode}
    trace = (work.trace_id, work.span_id) if work.trace_id else None
    undo = {key: args[key] for key in ("provider_id", "namespace_id", "grant_id", "node_id")} if name == GRANT else None
    d.step(
        name, f"provider:{s.provider_id}/grant:{held.grant_id}", args, attempt=held.tries, after_us=after_us,
        key=f"{held.grant_id}:{name}", undo=undo, trace=trace,
    )  # fmt: skip


def _put(d: Decision, held: Held) -> None:
    known: tuple[Held, ...] = d.state.held
    d.set(held=tuple(held if each.grant_id == held.grant_id else each for each in known))


def _row(d: Decision, held: Held, state: str = "") -> None:
    s: GrantState = d.state
    standing = state or held.state
    d.row(GrantRow(held.grant_id, s.namespace_id, s.node_id, s.provider_id, held.mode, standing, d.now_us))
    d.audit(f"grant.{standing}", f"provider:{s.provider_id}/grant:{held.grant_id}", details={
        "namespace_id": s.namespace_id, "node_id": s.node_id, "mode": held.mode, "users": sorted(s.users)})  # fmt: skip


GRANT_KIND = ActorKind(
    name="grant",
    state_type=GrantState,
    states={"held": "rest", "idle": "end"},
    transitions={("", "held"): "an attachment asks for access", ("held", "idle"): "nobody has any more"},
    handlers={
        UseGrant: _use,
        LeaveGrant: _leave,
        ReconcileGrant: _reconcile,
        StepDone: _step_done,
        TurnRefused: _refused,
    },
    creates=frozenset({UseGrant, LeaveGrant, ReconcileGrant, TurnRefused}),
    answers_refusal=lambda message: isinstance(message, UseGrant),
    events=False,
)
