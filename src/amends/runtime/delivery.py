"""Delivery: notifications and the outbox's streams as actors, so their failures take the one road (R01, R07).

A notification is created by the turn that causes it, with its first publishing step. A stream actor exists per
JetStream stream and keeps the run of the one outbox row that is stuck at the head of it.
"""

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from amends.runtime.domain import ActorKind, ActorState, StepSpec
from amends.runtime.messages import StepDone
from amends.values import ids
from amends.values.records import OutboxMarkRow, StepRow

if TYPE_CHECKING:
    from amends.runtime.decision import Decision

PUBLISH_NOTIFICATION = "notification.publish"
PUBLISH_OUTBOX = "outbox.publish"
CREATE_STREAMS, REPUBLISH = "streams.create", "outbox.republish"
RECORD_EVERY = 100  # of an unlimited budget, the first, every hundredth and the last try are recorded (rule 8)


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


class SentLate(Struct, frozen=True):
    """A parked notification went out: the stream acknowledges again (R07)."""

    started_us: int
    ended_us: int


class Redispatch(Struct, frozen=True):
    """Try a parked notification again: the bus is healthy, or an operator says so."""

    reason: str = ""


class CancelNotification(Struct, frozen=True):
    """An operator gives a notification up."""

    reason: str


def subject_of(state: Notification) -> str:
    """The JetStream subject of a notification (api.md 5)."""
    if state.audience == "ops":
        return f"amends.v1.ntf.ops.ops.{state.kind}"
    return f"amends.v1.ntf.account.{state.account_id}.{state.kind}"


def notify(
    d: "Decision", kind: str, *, account_id: str | None = None, entity: str = "", cause: str = "", **fields: Any
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


def _publish(d: "Decision", ntf_id: str, state: Notification, attempt: int, *, after_us: int = 0,
             late: bool = False) -> None:  # fmt: skip
    body = {**state.body, "late": late}
    args = {"subject": subject_of(state), "body": body, "message_id": ntf_id}
    step_id = d.mint("step")
    due = d.now_us + after_us if after_us else None
    row = StepRow(
        step_id, f"notification:{ntf_id}", PUBLISH_NOTIFICATION, attempt, "intended", ntf_id, f"notification:{ntf_id}",
        msgspec.json.encode(args).decode(), "{}", d.trace_id, d.span_id, d.now_us, None, due, "", "", d.context.epoch,
    )  # fmt: skip
    d.steps.append(row)
    d.rows.append(row)


def _published(s: Notification, m: StepDone, d: "Decision") -> None:
    if s.state != "pending":
        return  # cancelled meanwhile
    attempts = s.attempts + 1
    if m.ok:
        d.to("sent", attempts=attempts, sent_us=m.ended_us)
        _settle(s, d, m.args["body"].get("late", False), m.duration_ms)
        return
    run, _ = d.failed_step(m, "R07")
    run.retry("publish", d.ref, False, attempt=attempts, duration_ms=m.duration_ms, code=m.outcome.code)
    d.set(attempts=attempts, first_ref=s.first_ref or m.ref)
    if attempts - s.budget_from < d.limits("notification_tries"):
        wait = d.limits.delay_us("notification_backoff_ms", attempts, d.id)
        _publish(d, d.id, d.state, attempts + 1, after_us=wait)
        return
    d.to("parked", cause=m.outcome.code)
    if d.ref not in run_last(s, "R07"):
        run.compensate(
            "compensate", "external_call", "notification", d.ref, "partial", of=d.state.first_ref,
            cause=run.id, metadata={"attempts": attempts, "code": m.outcome.code},
        )  # fmt: skip
    run.degrade()


def run_last(s: ActorState, key: str) -> dict[str, str]:
    """The newest compensation by target of the open run under `key`."""
    return s.runs[key].last if key in s.runs else {}


def _settle(s: Notification, d: "Decision", late: bool, duration_ms: int) -> None:
    run = d.run("R07")
    if run is None:
        return
    if d.ref in run_last(s, "R07"):
        run.compensate(
            "compensate", "external_call", "notification", d.ref, "success", of=s.first_ref, cause=run.id, attempt=2,
            duration_ms=duration_ms, metadata={"late": late, "attempts": d.state.attempts},
        )  # fmt: skip
    else:
        run.retry("publish", d.ref, True, attempt=d.state.attempts, duration_ms=duration_ms)
    run.end("recovered")


def _sent_late(s: Notification, m: SentLate, d: "Decision") -> None:
    if s.state != "parked":
        return
    d.to("pending", cause="bus_healthy")
    d.to("sent", attempts=s.attempts + 1, sent_us=m.ended_us)
    _settle(s, d, True, max(0, (m.ended_us - m.started_us) // 1000))


def _redispatch(s: Notification, m: Redispatch, d: "Decision") -> None:
    if s.state != "parked":
        if m.reason:
            d.refuse("illegal_transition", f"the notification is {s.state}, not parked")
        return
    d.to("pending", cause="operator" if m.reason else "bus_healthy", reason=m.reason)
    d.set(budget_from=s.attempts - d.limits("notification_tries") + 1)  # one more try; a failure parks it again
    _publish(d, d.id, s, s.attempts + 1, late=True)


def _cancel(s: Notification, m: CancelNotification, d: "Decision") -> None:
    if s.state == "sent":
        d.refuse("illegal_transition", "the notification has been sent")
    if s.state == "cancelled":
        d.refuse("illegal_transition", "the notification is cancelled already")
    d.to("cancelled", reason=m.reason)
    run = d.run("R07")
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
        SentLate: _sent_late,
        Redispatch: _redispatch,
        CancelNotification: _cancel,
    },
    view=view_notification,
    events=False,
)


class Stream(ActorState, frozen=True, kw_only=True):
    """One JetStream stream as the outbox relay sees it."""

    outbox_id: str = ""
    attempts: int = 0
    first_ref: str = ""
    lagging: bool = False
    announced: int = 0  # numbers the control plane's own events
    anchored: int = 0


class RelayStarts(Struct, frozen=True):
    """The relay of this stream begins; the actor is made if it is the first time."""


class PublishFailed(Struct, frozen=True):
    """A real publish of the stream's oldest row failed (the `attempts`-th of that row)."""

    outbox_id: str
    attempts: int
    started_us: int
    ended_us: int
    code: str
    message: str


class PublishRecovered(Struct, frozen=True):
    """The row that was stuck has gone out; `released` rows stood behind it."""

    outbox_id: str
    attempts: int
    started_us: int
    ended_us: int
    released: int


class PublishPoisoned(Struct, frozen=True):
    """The broker refuses this row's payload itself: it is parked, with a case."""

    outbox_id: str
    attempts: int
    code: str
    message: str


class Lag(Struct, frozen=True):
    """The oldest pending row has passed the alarm age, or (`over`) the episode has ended."""

    age_us: int
    over: bool = False


class Anchor(Struct, frozen=True):
    """Time to publish the head of the audit chain, so that a cut tail shows."""

    audit_seq: int
    hash: str


class CreateStreams(Struct, frozen=True):
    """An operator lets the missing streams be made; the runtime never does so by itself while it runs (R01)."""

    reason: str


class Republish(Struct, frozen=True):
    """An operator sends again what was published since then, for a stream that was wiped."""

    since_us: int
    reason: str


class SettleOutbox(Struct, frozen=True):
    """An operator sends a parked row again (`skip` false) or gives it up."""

    outbox_id: str
    reason: str
    skip: bool = False


def _try_step(d: "Decision", m: PublishFailed | PublishRecovered, state: str, code: str, text: str) -> str:
    step_id = d.mint("step")
    d.rows.append(
        StepRow(
            step_id,
            f"outbox:{m.outbox_id}",
            PUBLISH_OUTBOX,
            m.attempts,
            state,
            m.outbox_id,
            f"stream:{d.id}",
            "{}",
            "{}",
            d.trace_id,
            d.span_id,
            m.started_us,
            m.ended_us,
            None,
            code,
            text,
            d.context.epoch,
        )
    )
    return ids.span_id("step", step_id)


def _relay_starts(s: Stream | None, m: RelayStarts, d: "Decision") -> None:
    if s is None:
        d.create(Stream(state="flowing"))


def _publish_failed(s: Stream, m: PublishFailed, d: "Decision") -> None:
    d.row(OutboxMarkRow(m.outbox_id, "pending", m.attempts, None))
    if s.state == "flowing":
        d.to("blocked", cause=m.code, outbox_id=m.outbox_id, attempts=m.attempts)
    else:
        d.set(outbox_id=m.outbox_id, attempts=m.attempts)
    recorded = s.state == "flowing" or m.attempts % RECORD_EVERY == 0
    if not recorded:
        return
    span = _try_step(d, m, "failed", m.code, m.message)
    target = f"outbox:{m.outbox_id}"
    run = d.open_run("R01", original=(d.trace_id, span), entity=target)
    failure = d.failure(m.code, m.message, component=PUBLISH_OUTBOX, span_id=span, ref=target, severity="low", run=run)
    run.caused_by(failure)
    run.retry("publish", target, False, attempt=m.attempts, code=m.code)
    if not s.first_ref:
        d.set(first_ref=f"{d.trace_id}:{span}")


def _publish_recovered(s: Stream, m: PublishRecovered, d: "Decision") -> None:
    d.row(OutboxMarkRow(m.outbox_id, "published", m.attempts, m.ended_us))
    if s.state != "blocked":
        return
    target = f"outbox:{m.outbox_id}"
    run = d.run("R01")
    if run is not None:
        action_id, (trace, parent) = run.plan()
        d.trace_id, d.span_id = trace, parent
        _try_step(d, m, "done", "", "")
        duration = max(0, (m.ended_us - m.started_us) // 1000)
        run.retry("publish", target, True, attempt=m.attempts, duration_ms=duration)
        run.compensate(
            "compensate", "external_call", "outbox", target, "success", of=s.first_ref, cause=run.id,
            duration_ms=duration, action_id=action_id, metadata={"released": m.released, "attempts": m.attempts},
        )  # fmt: skip
        run.end("recovered")
    d.to("flowing", outbox_id="", attempts=0, first_ref="")


def _poisoned(s: Stream, m: PublishPoisoned, d: "Decision") -> None:
    d.row(OutboxMarkRow(m.outbox_id, "parked", m.attempts, None))
    d.audit("outbox.parked", f"outbox:{m.outbox_id}", details={"code": m.code, "message": m.message[:300]})
    d.case("outbox_poison", f"outbox:{m.outbox_id}", evidence={"code": m.code, "message": m.message[:300]})
    if s.state == "blocked" and s.outbox_id == m.outbox_id:
        run = d.run("R01")
        if run is not None:
            run.action("escalate", "outbox_poison", f"outbox:{m.outbox_id}", "success")
            run.end("failed")
        d.to("flowing", outbox_id="", attempts=0, first_ref="")


def _lag(s: Stream, m: Lag, d: "Decision") -> None:
    if m.over != s.lagging:
        return
    d.set(lagging=not m.over, announced=s.announced + 1)
    d.audit("outbox.redispatched" if m.over else "outbox.lag_detected", details={"age_us": m.age_us})
    name = "recovered" if m.over else "degraded"
    data = {"stream": d.id, "age_us": m.age_us}
    d.announce("control_plane", "runtime", name, seq=s.announced + 1, cause="outbox_lag", data=data)


def _anchor(s: Stream, m: Anchor, d: "Decision") -> None:
    d.set(anchored=s.anchored + 1)
    d.announce("audit", "head", "anchored", seq=s.anchored + 1, data={"audit_seq": m.audit_seq, "hash": m.hash})


def _create_streams(s: Stream, m: CreateStreams, d: "Decision") -> None:
    d.audit("streams.create", reason=m.reason)
    d.step(CREATE_STREAMS, d.ref, {}, attempt=1, key=d.env.request_id)
    d.reply_entity = False
    d.reply(accepted=True)


def _republish(s: Stream, m: Republish, d: "Decision") -> None:
    d.audit("outbox.republish", reason=m.reason, details={"since_us": m.since_us})
    d.step(REPUBLISH, d.ref, {"stream": d.id, "since_us": m.since_us}, attempt=1, key=d.env.request_id)
    d.reply_entity = False
    d.reply(accepted=True)


def _admin_done(s: Stream, m: StepDone, d: "Decision") -> None:
    """An operator's step on the bus has ended; what became of it stands in its row and span."""
    d.audit(f"{m.name}.{m.outcome.kind}", details={"code": m.outcome.code, **m.outcome.data})


def _settle_outbox(s: Stream, m: SettleOutbox, d: "Decision") -> None:
    action = "outbox.skipped" if m.skip else "outbox.redispatch"
    d.row(OutboxMarkRow(m.outbox_id, "skipped" if m.skip else "pending", 0, None))
    d.audit(action, f"outbox:{m.outbox_id}", reason=m.reason)
    d.resolve_case("outbox_poison", m.reason, f"outbox:{m.outbox_id}")
    d.reply_entity = False
    d.reply(outbox_id=m.outbox_id, state="skipped" if m.skip else "pending")


STREAM = ActorKind(
    name="stream",
    state_type=Stream,
    states={"flowing": "rest", "blocked": "step outbox.publish"},
    transitions={
        ("", "flowing"): "the relay starts",
        ("flowing", "blocked"): "a publish failed",
        ("blocked", "flowing"): "the stuck row went out, or was parked as poison",
    },
    handlers={
        RelayStarts: _relay_starts,
        PublishFailed: _publish_failed,
        PublishRecovered: _publish_recovered,
        PublishPoisoned: _poisoned,
        Lag: _lag,
        SettleOutbox: _settle_outbox,
        Anchor: _anchor,
        CreateStreams: _create_streams,
        Republish: _republish,
        StepDone: _admin_done,
    },
    creates=frozenset({RelayStarts}),
    events=False,
)

DELIVERY_KINDS = (NOTIFICATION, STREAM)
DELIVERY_STEPS = (
    StepSpec(name=PUBLISH_NOTIFICATION, adapter="bus", no_undo="a repeat has the same message id"),
    StepSpec(name=CREATE_STREAMS, adapter="bus-admin", effect=False),
    StepSpec(name=REPUBLISH, adapter="bus-admin", effect=False),
    StepSpec(name=PUBLISH_OUTBOX, external=False, no_undo="a repeat has the same message id"),
)
