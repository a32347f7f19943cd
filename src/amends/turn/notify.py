"""Notifications as part of a turn: made by what causes them, published by a step (R07). `delivery` runs them."""

from typing import Any

import msgspec

from amends.domain.kinds import ActorState
from amends.turn.decision import Decision
from amends.values.records import StepRow

PUBLISH_NOTIFICATION = "notification.publish"


class Notification(ActorState, frozen=True, kw_only=True):
    """A notification: its body is fixed when its cause commits."""

    audience: str
    account_id: str | None
    kind: str
    entity: str
    body: dict[str, Any]
    dedupe_key: str
    created_us: int
    attempts: int = 0
    sent_us: int | None = None
    first_ref: str = ""  # span of the first failed publish: what the compensation compensates
    budget_from: int = 0  # attempts made before the present budget of tries began
    probe_step: str = ""  # the intent under which it probes the bus
    parent_span: str = ""  # what its first publish hangs below: a probe hangs beside it


def subject_of(state: Notification) -> str:
    """The JetStream subject of a notification (api.md 5)."""
    if state.audience == "ops":
        return f"amends.v1.ntf.ops.ops.{state.kind}"
    return f"amends.v1.ntf.account.{state.account_id}.{state.kind}"


def notify(
    d: Decision, kind: str, *, account_id: str | None = None, entity: str = "", cause: str = "", **fields: Any
) -> str:
    """A notification as part of this turn, to the account or, without one, to the operators; returns its id."""
    ntf_id = d.mint("ntf")
    entity = entity or d.ref
    body: dict[str, Any] = {
        "kind": kind, "notification_id": ntf_id, "account_id": account_id, "entity": entity,
        "occurred_us": d.now_us, "cause": cause or None, "recovery_trace_id": d.recovery_trace_id or None,
        **fields,
    }  # fmt: skip
    state = Notification(
        state="pending", audience="account" if account_id else "ops", account_id=account_id, kind=kind, entity=entity,
        body={key: value for key, value in body.items() if value is not None},
        dedupe_key=f"{entity}:{kind}:{d.state.version if d.state else 0}:{len(d.spawned)}", created_us=d.now_us,
    )  # fmt: skip
    d.spawn("notification", ntf_id, state)
    _publish(d, ntf_id, state, 1)
    return ntf_id


def _publish(d: Decision, ntf_id: str, state: Notification, attempt: int, *, after_us: int = 0,
             late: bool = False) -> None:  # fmt: skip
    row = _intent(d, d.mint("step"), ntf_id, state, attempt, after_us=after_us, late=late)
    d.steps.append(row)
    d.rows.append(row)


def _intent(d: Decision, step_id: str, ntf_id: str, state: Notification, attempt: int, *, after_us: int = 0,
            late: bool = False) -> StepRow:  # fmt: skip
    body = {**state.body, "late": late}
    args = {"subject": subject_of(state), "body": body, "message_id": ntf_id}
    due = d.now_us + after_us if after_us else None
    return StepRow(
        step_id, f"notification:{ntf_id}", PUBLISH_NOTIFICATION, attempt, "intended", ntf_id, f"notification:{ntf_id}",
        msgspec.json.encode(args).decode(), "{}", d.trace_id, d.span_id, d.now_us, None, due, "", "", d.context.epoch,
    )  # fmt: skip
