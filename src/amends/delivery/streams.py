"""The outbox's streams as actors: each keeps the runs of its stuck row and of those that were set apart (R01).

The relay tells a stream's actor what happened; the actor writes what it means. Knows no broker.
"""

from typing import Any

from msgspec import Struct

from amends.delivery.requests import CreateStreams, RedispatchOutbox, Republish, SkipOutbox
from amends.domain.kinds import ActorKind, ActorState
from amends.domain.versions import Message
from amends.turn.cases import close_case, find_case, open_case
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.recovery import Run, begin_run, failure, find_run
from amends.values import ids
from amends.values.anchors import Anchored
from amends.values.records import OutboxMarkRow, StepRow

PUBLISH_OUTBOX = "outbox.publish"
CREATE_STREAMS, REPUBLISH = "streams.create", "outbox.republish"
POISON = "outbox_poison"
NOTHING_SENT = {"stored": 0, "duplicate": 0, "refused": 0}
REPUBLISH_TRIES = 10  # of one page without progress
RECORD_EVERY = 100  # of an unlimited budget, the first, every hundredth and the last try are recorded (rule 8)


class Stream(ActorState, frozen=True, kw_only=True):
    """One JetStream stream as the outbox relay sees it."""

    outbox_id: str = ""
    attempts: int = 0
    first_ref: str = ""
    lagging: bool = False
    announced: int = 0  # numbers the control plane's own events
    anchored: int = 0
    apart: dict[str, str] = {}  # rows set apart, each with `<trace id>:<span id>` of its first failed try
    republishes: int = 0  # how often an operator had events sent again: part of their message ids


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
    apart: bool = False


class PublishRecovered(Struct, frozen=True):
    """The row that was stuck has gone out; `released` rows stood behind it."""

    outbox_id: str
    attempts: int
    started_us: int
    ended_us: int
    released: int
    apart: bool = False


class PublishSetApart(Struct, frozen=True):
    """The stream took another entity's row while it refused this one, once more: the trouble is this row's own."""

    failed: PublishFailed


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


class ClockStepped(Struct, frozen=True):
    """The wall clock and a peer's differ by more than a second, or (`over`) no longer do; "wall": and the runtime's."""

    offset_us: int
    over: bool = False
    peer: str = "postgres"


class ControlPlane(Message, frozen=True):
    """The runtime is `degraded` or has `recovered`, by another's word: its events are numbered here."""

    name: str
    cause: str
    data: dict[str, Any]


class Anchor(Struct, frozen=True):
    """Time to publish the heads of both chains, so that a cut tail shows."""

    heads: Anchored


def _try_step(d: Decision, m: PublishFailed | PublishRecovered, state: str, code: str, text: str) -> str:
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


def _relay_starts(s: Stream | None, m: RelayStarts, d: Decision) -> None:
    if s is None:
        d.create(Stream(state="flowing"))


def _run(d: Decision, outbox_id: str) -> Run | None:
    """The row's open run; one that the release before began is named by the matrix row alone."""
    row = d.context.matrix.row_of(PUBLISH_OUTBOX)
    return find_run(d, f"{row.id} {outbox_id}") or find_run(d, row.id)


def _publish_failed(s: Stream, m: PublishFailed, d: Decision) -> None:
    if m.apart and m.outbox_id not in s.apart:
        return  # an operator has given it up meanwhile
    d.row(OutboxMarkRow(m.outbox_id, "pending", m.attempts, None))
    if m.outbox_id in s.apart:
        run = _run(d, m.outbox_id)
        if run is not None and m.attempts % RECORD_EVERY == 0:
            _try_step(d, m, "failed", m.code, m.message)
            run.retry("publish", f"outbox:{m.outbox_id}", False, attempt=m.attempts, code=m.code)
        return
    if s.state == "flowing":
        d.to("blocked", cause=m.code, outbox_id=m.outbox_id, attempts=m.attempts)
    else:
        d.set(outbox_id=m.outbox_id, attempts=m.attempts)
    if s.state == "flowing" or m.attempts % RECORD_EVERY == 0:
        _, ref = _record(m, d)
        if not s.first_ref:
            d.set(first_ref=ref)


def _record(m: PublishFailed, d: Decision) -> tuple[Run, str]:
    """A failed try in the row's run, which it begins if there is none; also `<trace id>:<span id>` of the try."""
    span = _try_step(d, m, "failed", m.code, m.message)
    target = f"outbox:{m.outbox_id}"
    known = _run(d, m.outbox_id)
    row = d.context.matrix.row_of(PUBLISH_OUTBOX)
    run = known or begin_run(d, row.id, key=f"{row.id} {m.outbox_id}", original=(d.trace_id, span), entity=target)
    run.caused_by(failure(
        d, m.code, m.message, component=PUBLISH_OUTBOX, span_id=span, ref=target, severity="low", run=run
    ))  # fmt: skip
    run.retry("publish", target, False, attempt=m.attempts, code=m.code)
    return run, f"{d.trace_id}:{span}"


def _publish_recovered(s: Stream, m: PublishRecovered, d: Decision) -> None:
    if m.apart and m.outbox_id not in s.apart:
        return  # it went out just when it was given up: its readers know it, the row stays skipped
    d.row(OutboxMarkRow(m.outbox_id, "published", m.attempts, m.ended_us))
    apart = m.outbox_id in s.apart
    if s.state != "blocked" and not apart:
        return
    target = f"outbox:{m.outbox_id}"
    run = _run(d, m.outbox_id)
    if run is not None:
        action_id, (trace, parent) = run.plan()
        d.trace_id, d.span_id = trace, parent
        _try_step(d, m, "done", "", "")
        duration = max(0, (m.ended_us - m.started_us) // 1000)
        run.retry("publish", target, True, attempt=m.attempts, duration_ms=duration)
        run.compensate(
            "compensate", "external_call", "outbox", target, "success", of=s.apart.get(m.outbox_id, s.first_ref),
            cause=run.id, duration_ms=duration, action_id=action_id,
            metadata={"released": m.released, "attempts": m.attempts},
        )  # fmt: skip
        run.end("recovered")
    if apart:
        _end_apart(s, m.outbox_id, d, "it has gone out")
    else:
        d.to("flowing", outbox_id="", attempts=0, first_ref="")


def _set_apart(s: Stream, m: PublishSetApart, d: Decision) -> None:
    failed = m.failed
    d.row(OutboxMarkRow(failed.outbox_id, "pending", failed.attempts, None))
    target = f"outbox:{failed.outbox_id}"
    evidence = {"code": failed.code, "message": failed.message[:300], "attempts": failed.attempts}
    run, ref = _record(failed, d)
    run.escalate(POISON, target, evidence)
    run.degrade()
    d.audit("outbox.set_apart", target, details=evidence)
    blocked = s.state == "blocked" and s.outbox_id == failed.outbox_id
    apart = {**s.apart, failed.outbox_id: s.first_ref if blocked else ref}
    if blocked:
        d.to("flowing", outbox_id="", attempts=0, first_ref="", apart=apart, owing=True)
    else:
        d.set(apart=apart, owing=True)


def _end_apart(s: Stream, outbox_id: str, d: Decision, reason: str) -> None:
    d.set(apart={each: ref for each, ref in s.apart.items() if each != outbox_id})
    close_case(d, POISON, reason, f"outbox:{outbox_id}")
    d.set(owing=any(key.startswith(POISON) for key in d.state.cases))


def _poisoned(s: Stream, m: PublishPoisoned, d: Decision) -> None:
    d.row(OutboxMarkRow(m.outbox_id, "parked", m.attempts, None))
    d.audit("outbox.parked", f"outbox:{m.outbox_id}", details={"code": m.code, "message": m.message[:300]})
    open_case(d, POISON, f"outbox:{m.outbox_id}", evidence={"code": m.code, "message": m.message[:300]})
    d.set(owing=True, apart={each: ref for each, ref in s.apart.items() if each != m.outbox_id})
    blocked = s.state == "blocked" and s.outbox_id == m.outbox_id
    if not blocked and m.outbox_id not in s.apart:
        return
    run = _run(d, m.outbox_id)
    if run is not None:
        run.action("escalate", POISON, f"outbox:{m.outbox_id}", "success")
        run.end("failed")
    if blocked:
        d.to("flowing", outbox_id="", attempts=0, first_ref="")


def _lag(s: Stream, m: Lag, d: Decision) -> None:
    if m.over != s.lagging:
        return
    d.set(lagging=not m.over, announced=s.announced + 1)
    d.audit("outbox.redispatched" if m.over else "outbox.lag_detected", details={"age_us": m.age_us})
    name = "recovered" if m.over else "degraded"
    data = {"stream": d.id, "age_us": m.age_us}
    d.announce("control_plane", "runtime", name, seq=s.announced + 1, cause="outbox_lag", data=data)


def _clock(s: Stream, m: ClockStepped, d: Decision) -> None:
    d.set(announced=s.announced + 1)
    data = {"offset_us": m.offset_us, "peer": m.peer}
    d.audit("clock.in_step" if m.over else "clock.stepped", "control_plane:runtime", details=data)
    name = "recovered" if m.over else "degraded"
    d.announce("control_plane", "runtime", name, seq=s.announced + 1, cause="clock", data=data)


def _control_plane(s: Stream, m: ControlPlane, d: Decision) -> None:
    d.set(announced=s.announced + 1)
    d.announce("control_plane", "runtime", m.name, seq=s.announced + 1, cause=m.cause, data=m.data)


def _anchor(s: Stream, m: Anchor, d: Decision) -> None:
    d.set(anchored=s.anchored + 1)
    data = m.heads.fields()
    data["hash"] = data["audit_hash"]  # as it has been called from the first release on
    d.announce("audit", "head", "anchored", seq=s.anchored + 1, data=data)


def _create_streams(s: Stream, m: CreateStreams, d: Decision) -> None:
    d.audit("streams.create", reason=m.reason)
    d.step(CREATE_STREAMS, d.ref, {}, attempt=1, key=d.env.request_id)
    d.reply_entity = False
    d.reply(accepted=True)


def _republish(s: Stream, m: Republish, d: Decision) -> None:
    """Under message ids of their own: the broker would drop the first ones within its window, purged or not."""
    number = s.republishes + 1
    d.set(republishes=number)
    d.audit("outbox.republish", reason=m.reason, details={"since_us": m.since_us, "number": number})
    args = {
        "stream": d.id, "until_us": d.now_us, "place": [m.since_us, ""], "counts": NOTHING_SENT, "number": number,
        "request_id": d.env.request_id,
    }  # fmt: skip
    d.step(REPUBLISH, d.ref, args, attempt=1, key=d.env.request_id)
    d.reply_entity = False
    d.reply(accepted=True)


def _admin_done(s: Stream, m: StepDone, d: Decision) -> None:
    """An operator's step on the bus has ended; what became of it stands in its row and span."""
    if m.name == REPUBLISH and _next_page(m, d):
        return
    details = {"code": m.outcome.code, **m.outcome.data}
    if m.name == REPUBLISH:
        counts = details.pop("counts", m.args.get("counts", NOTHING_SENT))
        details |= {**counts, "request_id": m.args["request_id"]}
    d.audit(f"{m.name}.{m.outcome.kind}", details=details)


def _next_page(m: StepDone, d: Decision) -> bool:
    """Intend the next page of a republish, or this one's rest again; False when all is sent or its tries are spent.

    The place stands in the step's arguments, so a crash, a drain or an outage costs one page at most.
    """
    found = m.outcome.data
    if m.ok and found["complete"]:
        return False
    before = m.args.get("counts", NOTHING_SENT)  # a page intended by the release before has none, and no number
    place, counts = found.get("place", m.args["place"]), found.get("counts", before)
    attempt = 1 if place != m.args["place"] else m.attempt + 1
    if attempt > REPUBLISH_TRIES:
        return False
    wait = 0 if m.ok else d.limits.delay_us("outbox_backoff_ms", attempt, d.id)
    d.step(REPUBLISH, d.ref, {**m.args, "place": place, "counts": counts}, attempt=attempt, after_us=wait,
           key=m.args["request_id"])  # fmt: skip
    return True


def _settle_outbox(s: Stream, m: RedispatchOutbox, d: Decision) -> None:
    target, skip = f"outbox:{m.outbox_id}", isinstance(m, SkipOutbox)
    waits = not find_case(d, POISON, target)  # it is tried by itself, in the order of its stream: now
    if waits and skip:
        d.refuse("illegal_transition", "the outbox row is not parked: it goes out by itself")
    d.audit("outbox.skipped" if skip else "outbox.redispatch", target, reason=m.reason)
    d.reply_entity = False
    d.reply(outbox_id=m.outbox_id, state="skipped" if skip else "pending")
    if waits:
        return
    if m.outbox_id in s.apart:  # it is tried again and again: now, or no more
        if skip:
            d.row(OutboxMarkRow(m.outbox_id, "skipped", 0, None))
            run = _run(d, m.outbox_id)
            if run is not None:
                run.end("failed")
            _end_apart(s, m.outbox_id, d, m.reason)
        return
    d.row(OutboxMarkRow(m.outbox_id, "skipped" if skip else "pending", 0, None))
    close_case(d, POISON, m.reason, target)
    d.set(owing=any(key.startswith(POISON) for key in d.state.cases))


STREAM = ActorKind(
    name="stream",
    state_type=Stream,
    states={"flowing": "rest", "blocked": "step outbox.publish"},
    transitions={
        ("", "flowing"): "the relay starts",
        ("flowing", "blocked"): "a publish failed",
        ("blocked", "flowing"): "the stuck row went out, was parked as poison, or was set apart",
    },
    handlers={
        RelayStarts: _relay_starts,
        PublishFailed: _publish_failed,
        PublishRecovered: _publish_recovered,
        PublishPoisoned: _poisoned,
        PublishSetApart: _set_apart,
        Lag: _lag,
        RedispatchOutbox: _settle_outbox,
        SkipOutbox: _settle_outbox,
        ClockStepped: _clock,
        ControlPlane: _control_plane,
        Anchor: _anchor,
        CreateStreams: _create_streams,
        Republish: _republish,
        StepDone: _admin_done,
    },
    creates=frozenset({RelayStarts}),
    events=False,
)
