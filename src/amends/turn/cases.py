"""Operator cases as part of a turn: one open case per target and kind, its commands, and who is told."""

from collections.abc import Sequence
from typing import Any, Literal

from amends.turn.decision import Decision, text
from amends.turn.notify import notify
from amends.values.errors import Bug
from amends.values.records import CaseRow

CaseState = Literal["open", "retrying"]


def open_case(
    d: Decision, kind: str, target_ref: str = "", *, evidence: Any = None, recovery_trace_id: str = "",
    state: CaseState = "open", reason: str = "", commands: Sequence[str] = (),
) -> str:  # fmt: skip
    """Open the case of that kind on this entity, or move the open one to `state`; returns its id.

    `commands`: those of its kind that suit this target, all where none are named.
    """
    if kind not in d.context.case_commands:
        raise Bug(f"{d.ref}: the kind of case {kind!r} is not declared")
    declared = d.context.case_commands[kind]
    if not {*commands} <= {*declared}:
        raise Bug(f"{d.ref}: {kind!r} is not settled by all of {list(commands)}")
    key = case_key(kind, target_ref, d.ref)
    known = d.state.cases.get(key)
    case_id: str = known or d.mint("case")
    d.row(CaseRow(
        case_id, kind, target_ref or d.ref, d.ref, state, d.now_us, None, recovery_trace_id,
        text(list(commands or declared)), text(evidence or {}),
    ))  # fmt: skip
    details = {"target_ref": target_ref or d.ref, "kind": kind}
    d.audit_change(
        f"case.{state}", f"case:{case_id}", _state(d, case_id) if known else None, state, reason or kind, details
    )
    rest = d.state.retrying - {case_id}
    d.set(retrying=rest | {case_id} if state == "retrying" else rest)
    if known is None:
        d.set(cases={**d.state.cases, key: case_id})
        notify(d, "case.opened", entity=target_ref or d.ref, cause=kind, case_id=case_id, state=state)
    return case_id


def close_case(d: Decision, kind: str, reason: str = "", target_ref: str = "") -> None:
    """Close the open case of that kind (and target, if it is not the entity itself), if there is one."""
    key = case_key(kind, target_ref, d.ref)
    case_id = d.state.cases.get(key)
    if case_id is None:
        return
    d.row(CaseRow(case_id, kind, "", d.ref, "resolved", d.now_us, d.now_us, "", "[]", "{}"))
    d.audit_change("case.resolved", f"case:{case_id}", _state(d, case_id), "resolved", reason or kind, {})
    d.set(
        cases={name: known for name, known in d.state.cases.items() if name != key},
        retrying=d.state.retrying - {case_id},
    )


def find_case(d: Decision, kind: str, target_ref: str = "") -> str:
    """The id of the open case of that kind (and target), "" if there is none."""
    found: str = d.state.cases.get(case_key(kind, target_ref, d.ref), "")
    return found


def case_key(kind: str, target_ref: str, own_ref: str) -> str:
    """One open case per (target, kind): an entity may hold cases of several targets, such as outbox rows."""
    return kind if target_ref in ("", own_ref) else f"{kind} {target_ref}"


def _state(d: Decision, case_id: str) -> str:
    return "retrying" if case_id in d.state.retrying else "open"
