"""Notifications as actors: made by the turn that causes them, published by a step, parked while the bus is down (R07).

The oldest parked one probes the bus. Its probe is one intent, committed once and tried until it is acknowledged: what
fails of it leaves no record.

Knows no account rule and no broker: what one says is fixed by its cause, and publishing is an adapter's work.
"""

from typing import Any

from msgspec import Struct

from amends.delivery.requests import CancelNotification, RedispatchNotification
from amends.domain.kinds import ActorKind, ActorState, Legal
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.notify import PUBLISH_NOTIFICATION, Notification, _intent, _publish
from amends.turn.recovery import failed_step, find_run
from amends.values.records import StepEndRow


class Probe(Struct, frozen=True):
    """Try the bus with this parked notification: whether the stream acknowledges again (R07)."""


class BusHealthy(Struct, frozen=True):
    """Try a parked notification again: the stream acknowledges others."""


def _published(s: Notification, m: StepDone, d: Decision) -> None:
    probe = m.step_id == s.probe_step
    if s.state not in ("pending", "parked"):
        return  # sent or cancelled meanwhile
    attempts = s.attempts + 1
    if m.ok:
        if s.state == "parked":
            d.to("pending", cause="bus_healthy")
        d.to("sent", attempts=attempts, sent_us=m.ended_us)
        if not probe:
            _end_probe(s, d)
        _settle(s, d, m.args["body"].get("late", False), m.duration_ms)
        return
    if probe:
        d.leave_intended()
        return
    run = failed_step(d, m)
    run.retry("publish", d.ref, False, attempt=attempts, duration_ms=m.duration_ms, code=m.outcome.code)
    d.set(attempts=attempts, first_ref=s.first_ref or m.ref, parent_span=s.parent_span or d.span_id)
    if attempts - s.budget_from < run.tries("notification_tries"):
        wait = run.wait_us("notification_backoff_ms", attempts)
        _publish(d, d.id, d.state, attempts + 1, after_us=wait)
        return
    d.to("parked", cause=m.outcome.code)
    if d.ref not in run_last(s, _row(d)):
        run.compensate(
            "compensate", "external_call", "notification", d.ref, "partial", of=d.state.first_ref,
            cause=run.id, metadata={"attempts": attempts, "code": m.outcome.code},
        )  # fmt: skip
    run.degrade()


def _probe(s: Notification, m: Probe, d: Decision) -> None:
    """Have the bus tried under the one intent of this outage, committed by the first probe (B8)."""
    d.trace_id, _, first = s.first_ref.partition(":")
    d.span_id = s.parent_span or first  # one parked by an older release does not say where it hangs
    row = _intent(d, s.probe_step or d.mint("step"), d.id, s, s.attempts + 1, late=True)
    d.steps.append(row)
    if not s.probe_step:
        d.rows.append(row)
        d.set(probe_step=row.step_id)


def _end_probe(s: Notification, d: Decision) -> None:
    """What settles the notification by another way ends the intent of its probe with it."""
    if s.probe_step:
        code, text = "superseded", "the notification was settled by another way"
        d.rows.append(StepEndRow(s.probe_step, "failed", d.now_us, d.now_us, code, text, d.context.epoch))


def _row(d: Decision) -> str:
    return d.context.matrix.row_of(PUBLISH_NOTIFICATION).id


def run_last(s: ActorState, key: str) -> dict[str, str]:
    """The newest compensation by target of the open run under `key`."""
    return s.runs[key].last if key in s.runs else {}


def _settle(s: Notification, d: Decision, late: bool, duration_ms: int) -> None:
    run = find_run(d, _row(d))
    if run is None:
        return
    if d.ref in run_last(s, _row(d)):
        run.compensate(
            "compensate", "external_call", "notification", d.ref, "success", of=s.first_ref, cause=run.id, attempt=2,
            duration_ms=duration_ms, metadata={"late": late, "attempts": d.state.attempts},
        )  # fmt: skip
    else:
        run.retry("publish", d.ref, True, attempt=d.state.attempts, duration_ms=duration_ms)
    run.end("recovered")


def _redispatch(s: Notification, m: RedispatchNotification, d: Decision) -> None:
    if s.state == "pending":  # it is tried by itself: the next try is now
        d.audit("notification.redispatch", reason=m.reason, details={"attempts": s.attempts})
        d.hasten(d.ref)
        return
    _again(s, d, "operator", m.reason)


def _healthy(s: Notification, m: BusHealthy, d: Decision) -> None:
    if s.state == "parked":
        _again(s, d, "bus_healthy")


def _again(s: Notification, d: Decision, cause: str, reason: str = "") -> None:
    d.to("pending", cause=cause, reason=reason)
    d.set(budget_from=s.attempts - d.limits("notification_tries") + 1)  # one more try; a failure parks it again
    _publish(d, d.id, s, s.attempts + 1, late=True)


def _cancel(s: Notification, m: CancelNotification, d: Decision) -> None:
    d.to("cancelled", reason=m.reason)
    _end_probe(s, d)
    run = find_run(d, _row(d))
    if run is not None:
        run.action("fallback", "cancelled by an operator", d.ref, "success")
        run.end("recovered")


def view_notification(s: Notification, identifier: str, d: Any) -> dict[str, Any]:
    """Row of `public_v1.notification`."""
    return {
        "notification_id": identifier, "audience": s.audience, "account_id": s.account_id, "kind": s.kind,
        "entity": s.entity, "state": s.state, "attempts": s.attempts, "dedupe_key": s.dedupe_key,
        "created_us": s.created_us, "sent_us": s.sent_us,
    }  # fmt: skip


NOTIFICATION = ActorKind(
    name="notification",
    table="notifications",
    columns={"account_id": str, "kind": str, "entity": str, "dedupe_key": str},
    state_type=Notification,
    states={"pending": "step notification.publish", "parked": "rest", "sent": "end", "cancelled": "end"},
    transitions={
        ("", "pending"): "its cause commits",
        ("pending", "sent"): "the stream acknowledged it",
        ("pending", "parked"): "tries exhausted",
        ("parked", "pending"): "the bus is healthy, or an operator",
        ("pending", "cancelled"): "an operator, with a reason",
        ("parked", "cancelled"): "an operator, with a reason",
    },
    handlers={
        StepDone: _published,
        Probe: _probe,
        BusHealthy: _healthy,
        RedispatchNotification: _redispatch,
        CancelNotification: _cancel,
    },
    legal={
        Probe: Legal(("parked",)),
        BusHealthy: Legal(("pending", "parked")),
        RedispatchNotification: Legal(("pending", "parked"), "sent again"),
        CancelNotification: Legal(("pending", "parked"), "cancelled"),
    },
    view=view_notification,
    events=False,
)
