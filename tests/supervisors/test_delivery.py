"""Delivery as decided: probes of parked notifications, settling parked events, republishing by pages."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from amends.delivery import parked as parked_module
from amends.delivery.domain import DELIVERY_KINDS
from amends.delivery.notifications import BusHealthy, Probe
from amends.delivery.parked import ParkedNotifications
from amends.delivery.requests import (
    CancelNotification,
    RedispatchNotification,
    RedispatchOutbox,
    Republish,
    SkipOutbox,
)
from amends.delivery.streams import PublishPoisoned, Stream
from amends.ports.bus import Published
from amends.ports.journal import StoredEvent
from amends.ports.steps import Outcome, OutcomeKind, StepCall
from amends.runtime.policy import RUNTIME_HANDLERS
from amends.turn.context import Context
from amends.turn.decision import Decision
from amends.turn.messages import Envelope, ResolveCase, StepDone
from amends.turn.notify import Notification
from amends.values.errors import Rejected
from amends.values.limits import Limits
from amends.values.records import AuditDraft, CompensationRow, OutboxMarkRow, OutboxRow, StepEndRow, StepRow
from supervisors import bus_admin
from supervisors.api.endpoints import finders
from supervisors.bus_admin import BusAdmin, Republishes
from supervisors.rental import RENTAL
from tests.patience import PATIENCE_S

KINDS = {kind.name: kind for kind in DELIVERY_KINDS}
LIMITS = Limits({"notification_tries": 3, "notification_backoff_ms": (10, 20), "outbox_backoff_ms": (1, 2)})
TRACE, SPAN = "ab" * 16, "cd" * 8
PENDING = Notification(
    state="pending", version=1, audience="account", account_id="acme", kind="allocation.released",
    entity="allocation:a1", body={"kind": "allocation.released"}, dedupe_key="k", created_us=1,
)  # fmt: skip


class Actor:
    """One actor, told messages one after another; each turn's decision is kept."""

    def __init__(self, kind: str, identifier: str, state: Any) -> None:
        self.kind, self.id, self.state, self.now_us = KINDS[kind], identifier, state, 1_000_000
        self.context = Context((RENTAL,), epoch=1, limits=LIMITS)
        self.intended: dict[str, StepRow] = {}

    def tell(self, message: Any) -> Decision:
        self.now_us += 1000
        env = Envelope(message, trace_id=TRACE, span_id=SPAN, request_id="req_1")
        decision = Decision(
            self.kind, self.id, self.state, env, self.context, self.now_us, self.now_us.to_bytes(16, "big")
        )
        handler = RUNTIME_HANDLERS.get(type(message)) or self.kind.handlers[type(message)]
        if self.kind.takes(self.state, message, command=bool(getattr(message, "reason", ""))):
            handler(self.state, message, decision)
        if decision.changed:
            decision.build()
        self.state = decision.state
        for row in decision.rows:
            if type(row) is StepRow:
                self.intended[row.step_id] = row
            elif type(row) is StepEndRow:
                del self.intended[row.step_id]
        return decision

    def end(self, row: StepRow, outcome: Outcome) -> Decision:
        args = msgspec.json.decode(row.args)
        return self.tell(
            StepDone(row.step_id, row.name, row.attempt, row.target, args, outcome, 1, self.now_us, row.trace_id, SPAN)
        )

    def fail(self, row: StepRow, kind: OutcomeKind = "failed") -> Decision:
        return self.end(row, Outcome(kind, "no_stream", "no stream takes it"))


def parked() -> Actor:
    """A notification whose tries are spent."""
    actor = Actor("notification", "ntf_1", PENDING)
    step = StepRow(
        "step_1", actor.state.entity, "notification.publish", 1, "intended", "ntf_1", "notification:ntf_1",
        '{"body":{"late":false}}', "{}", TRACE, SPAN, 1, None, None, "", "", 1,
    )  # fmt: skip
    actor.intended[step.step_id] = step
    for _ in range(3):
        actor.fail(next(iter(actor.intended.values())))
    assert (actor.state.state, actor.intended) == ("parked", {})
    return actor


def test_a_probe_is_one_committed_intent_however_often_the_bus_is_tried() -> None:
    # given a parked notification, when it probes the bus for the first time, then its intent commits
    actor = parked()
    first = actor.tell(Probe())
    (row,) = actor.intended.values()
    assert first.changed
    assert first.steps == [row]
    assert msgspec.json.decode(row.args)["body"]["late"] is True
    # when the bus stays down, then nothing more is written, and the same step runs again
    for _ in range(20):
        failed = actor.fail(row)
        assert (failed.changed, failed.state.state, failed.state.attempts) == (False, "parked", 3)
        again = actor.tell(Probe())
        assert not again.changed
        assert [step.step_id for step in again.steps] == [row.step_id]
    # when it is acknowledged, then it is sent, by one record that supersedes the one of the parking
    sent = actor.end(row, Outcome("done"))
    assert (actor.state.state, actor.state.runs, actor.intended) == ("sent", {}, {})
    assert [row.outcome for row in sent.rows if type(row) is CompensationRow] == ["success"]


@pytest.mark.parametrize("word", ["cancel", "redispatch"])
def test_who_settles_a_notification_by_another_way_ends_the_intent_of_its_probe(word: str) -> None:
    actor = parked()
    actor.tell(Probe())
    (probe,) = actor.intended.values()
    if word == "cancel":
        actor.tell(CancelNotification(notification_id="ntf_1", reason="told by telephone"))
    else:
        # an operator's try is another step; the probe's outcome is none of its tries
        (step,) = actor.tell(RedispatchNotification(notification_id="ntf_1", reason="customer asks")).steps
        actor.fail(probe)
        assert (actor.state.state, actor.state.attempts) == ("pending", 3)
        actor.end(step, Outcome("done"))
    assert actor.state.state == ("cancelled" if word == "cancel" else "sent")
    assert actor.intended == {}
    # what the probe still brings changes nothing
    before = actor.state
    actor.intended[probe.step_id] = probe
    actor.end(probe, Outcome("done"))
    assert actor.state == before


def test_of_two_operators_only_the_first_settles_a_parked_event() -> None:
    actor = Actor("stream", "AMENDS_EVT", Stream(state="flowing", version=1))
    for outbox_id in ("evt_1", "evt_2"):
        actor.tell(PublishPoisoned(outbox_id, 1, "too_large", "too large"))
    # its case cannot be talked away while it is owed
    case_id = actor.state.cases["outbox_poison outbox:evt_1"]
    with pytest.raises(Rejected, match="still owed"):
        actor.tell(ResolveCase("outbox_poison", case_id, "never mind"))
    # when both pass the look at the row before either has committed, then the second one gives up nothing that goes out
    done = actor.tell(RedispatchOutbox(outbox_id="evt_1", reason="larger now"))
    assert [row.state for row in done.rows if type(row) is OutboxMarkRow] == ["pending"]
    with pytest.raises(Rejected, match="not parked"):
        actor.tell(SkipOutbox(outbox_id="evt_1", reason="give it up"))
    again = actor.tell(
        RedispatchOutbox(outbox_id="evt_1", reason="me too")
    )  # it waits by itself now: the next try is asked for
    assert [type(row) for row in again.rows if type(row) is OutboxMarkRow] == []
    assert actor.state.owing
    actor.tell(SkipOutbox(outbox_id="evt_2", reason="agreed"))
    assert (actor.state.owing, actor.state.cases) == (False, {})


# --- republish -------------------------------------------------------------------------------------------


class Broker:
    """A stream that takes what it is given, or not; and the table behind it."""

    def __init__(self, count: int) -> None:
        self.table = [
            OutboxRow(f"evt_{n:04}", "node:n1", "AMENDS_EVT", "s", "{}", TRACE, SPAN, 100 + n // 3)
            for n in range(count)
        ]
        self.sent: list[str] = []
        self.takes = 10**9
        self.answers: dict[str, Published] = {}
        self.fresh = True

    @property
    def journal(self) -> Any:
        return self

    async def published_events(self, stream: str, after: tuple[int, str], until_us: int, limit: int) -> list[OutboxRow]:
        assert stream == "AMENDS_EVT"
        return [r for r in self.table if after < (r.created_us, r.outbox_id) and r.created_us <= until_us][:limit]

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        if len(self.sent) >= self.takes:
            return Published("down", "no_stream", "gone")
        self.sent.append(message_id)
        return self.answers.get(message_id, Published("ok"))

    async def create_streams(self) -> list[str]:
        return []


async def ended(actor: Actor, admin: BusAdmin) -> Decision:
    """Run the step that is intended."""
    (row,) = actor.intended.values()
    call = StepCall(
        row.step_id, row.name, row.entity, row.target, msgspec.json.decode(row.args), 1, "k", 1, 60_000, TRACE, SPAN
    )
    return actor.end(row, await admin.run(call))


async def test_what_a_wiped_stream_lost_is_sent_again_by_pages_from_where_the_last_one_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bus_admin, "PAGE", 10)
    broker = Broker(35)
    broker.table.append(msgspec.structs.replace(broker.table[0], outbox_id="evt_later", created_us=10**12))
    admin = BusAdmin(broker, broker.journal, lambda: broker.fresh)
    actor = Actor("stream", "AMENDS_EVT", Stream(state="flowing", version=1))
    actor.tell(Republish(since_us=102, reason="disk lost"))
    # given a first page, then a stream that goes away in the middle of the second
    await ended(actor, admin)
    broker.takes = 14
    await ended(actor, admin)
    (row,) = actor.intended.values()
    place = [broker.table[6 + 13].created_us, broker.table[6 + 13].outbox_id]
    assert (msgspec.json.decode(row.args)["place"], row.attempt) == (place, 1)
    assert row.next_attempt_us is not None
    # when a page ends without an outcome, and the next one finds the lease old
    broker.takes = 10**9
    actor.end(row, Outcome("unknown", "timeout"))
    broker.fresh = False
    await ended(actor, admin)
    broker.fresh = True
    # then each event of before the command goes out once, and one audit entry says how many
    audits: list[AuditDraft] = []
    async with asyncio.timeout(PATIENCE_S):
        while actor.intended:
            audits += (await ended(actor, admin)).audits
    assert broker.sent == [f"{row.outbox_id}.r1" for row in broker.table[6:35]]
    (entry,) = audits
    assert (entry.action, entry.details["stored"]) == ("outbox.republish.done", 29)


async def no_rows(name: str, *args: Any) -> list[Any]:
    return []


async def test_what_ended_before_this_runtime_is_read_and_not_waited_for() -> None:
    async def rows(name: str, ref: str, request_id: str) -> list[Any]:
        assert (name, ref) == ("republish_outcome", "stream:AMENDS_EVT")
        details = {"code": "", "stored": 7, "duplicate": 1, "refused": 0, "request_id": request_id}
        return [{"action": "outbox.republish.done", "details": details}]

    expected = {"stored": 7, "duplicate": 1, "refused": 0, "complete": True}
    async with asyncio.timeout(1):
        assert await Republishes(rows).outcome("req_9") == expected


async def test_what_the_broker_stored_knew_and_refused_is_counted_apart_and_a_second_time_has_ids_of_its_own() -> None:
    broker = Broker(6)
    broker.answers = {"evt_0002.r1": Published("duplicate"), "evt_0004.r1": Published("poison", "too_large")}
    admin = BusAdmin(broker, broker.journal, lambda: True)
    actor = Actor("stream", "AMENDS_EVT", Stream(state="flowing", version=1))
    followed = Republishes(no_rows)
    actor.tell(Republish(since_us=0, reason="purged"))
    decision = await ended(actor, admin)
    followed.follow(decision)
    assert await followed.outcome("req_1") == {"stored": 4, "duplicate": 1, "refused": 1, "complete": True}
    actor.tell(Republish(since_us=0, reason="purged again"))
    await ended(actor, admin)
    assert broker.sent[6:] == [f"evt_{number:04}.r2" for number in range(6)]


async def test_a_page_that_the_release_before_has_intended_goes_on() -> None:
    # given what 0.1.0 left in the middle: the old arguments
    broker = Broker(5)
    actor = Actor("stream", "AMENDS_EVT", Stream(state="flowing", version=1))
    actor.tell(Republish(since_us=0, reason="wiped"))
    (row,) = actor.intended.values()
    row.args = msgspec.json.encode(
        {"stream": "AMENDS_EVT", "until_us": 10**9, "place": [100, "evt_0001"], "sent": 2, "request_id": "req_0"}
    ).decode()
    # when this release takes it up
    (entry,) = (await ended(actor, BusAdmin(broker, broker.journal, lambda: True))).audits
    # then the rest is sent
    assert (entry.action, entry.details["stored"]) == ("outbox.republish.done", 3)
    broker = Broker(5)
    # and a page that failed is tried again with what is known
    broker.takes = 0
    actor.tell(Republish(since_us=0, reason="wiped"))
    (row,) = actor.intended.values()
    old = {key: value for key, value in msgspec.json.decode(row.args).items() if key not in ("counts", "number")}
    row.args = msgspec.json.encode(old).decode()
    await ended(actor, BusAdmin(broker, broker.journal, lambda: True))
    (again,) = actor.intended.values()
    assert (again.attempt, msgspec.json.decode(again.args)["counts"]) == (
        2,
        {"stored": 0, "duplicate": 0, "refused": 0},
    )


async def test_a_republish_that_takes_longer_than_an_answer_may_is_said_to_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bus_admin, "ANSWER_S", 0.01)
    followed = Republishes(no_rows)
    assert await followed.outcome("req_1") == {"complete": False}
    assert followed._asking == {}


async def test_a_republish_without_progress_gives_up_and_says_where_it_stands() -> None:
    broker = Broker(5)
    broker.takes = 2
    admin = BusAdmin(broker, broker.journal, lambda: True)
    actor = Actor("stream", "AMENDS_EVT", Stream(state="flowing", version=1))
    actor.tell(Republish(since_us=0, reason="disk lost"))
    decisions = []
    async with asyncio.timeout(PATIENCE_S):
        while actor.intended:
            decisions.append(await ended(actor, admin))
    (entry,) = decisions[-1].audits
    assert (entry.action, entry.details["stored"]) == ("outbox.republish.failed", 2)
    assert 5 < len(decisions) < 20


# --- the probe of the bus --------------------------------------------------------------------------------


class Told:
    """An engine that remembers what it was told."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Any]] = []
        self.now = 0
        self.context = SimpleNamespace(limits=LIMITS)

    def now_us(self) -> int:
        return self.now

    def tell(self, kind: str, identifier: str, env: Envelope) -> None:
        self.messages.append((identifier, env.message))


def turn(ntf_id: str, state: str, message: Any = None) -> Any:
    """A turn of a notification as its followers see it."""
    kind, after = SimpleNamespace(name="notification"), SimpleNamespace(state=state)
    return SimpleNamespace(kind=kind, id=ntf_id, state=after, env=SimpleNamespace(message=message))


def done() -> StepDone:
    return StepDone("s", "notification.publish", 1, "t", {}, Outcome("failed"), 1, 2, TRACE, SPAN)


async def told(engine: Told, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(engine.messages) < count:
            await asyncio.sleep(0.001)


async def test_only_the_oldest_parked_one_probes_one_try_at_a_time_and_the_others_follow_an_acknowledgement() -> None:
    engine: Any = Told()
    service = ParkedNotifications(engine)
    for ntf_id in ("ntf_2", "ntf_1", "ntf_3"):
        service.follow(turn(ntf_id, "parked"))
    task = asyncio.create_task(service.run())
    try:
        await told(engine, 1)
        await asyncio.sleep(0.08)
        assert engine.messages == [("ntf_1", Probe())], "it has not answered yet"
        service.follow(turn("ntf_1", "parked", done()))
        await told(engine, 2)
        assert engine.messages[1] == ("ntf_1", Probe())
        # an answer that was set aside is waited for two minutes, no longer
        engine.now += parked_module.ANSWER_US + 1
        await told(engine, 3)
        # when the stream acknowledges one, then the others follow
        service.follow(turn("ntf_1", "sent", done()))
        await told(engine, 5)
        assert engine.messages[3:] == [("ntf_2", BusHealthy()), ("ntf_3", BusHealthy())]
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_when_one_comes_back_parked_the_others_wait_for_the_next_acknowledgement() -> None:
    engine: Any = Told()
    service = ParkedNotifications(engine)
    names = [f"ntf_{n}" for n in range(9)]
    for ntf_id in names:
        service.follow(turn(ntf_id, "parked"))
    task = asyncio.create_task(service.run())
    try:
        await told(engine, 1)
        service.follow(turn("ntf_0", "sent", done()))
        await told(engine, 3)
        service.follow(turn("ntf_1", "pending"))
        service.follow(turn("ntf_1", "parked"))
        await asyncio.sleep(0.15)
        assert sum(message == BusHealthy() for _, message in engine.messages) <= 3
    finally:
        task.cancel()
        await asyncio.wait({task})


def test_a_redispatch_of_a_notification_that_is_tried_by_itself_is_the_next_try_now() -> None:
    actor = Actor("notification", "ntf_1", PENDING)
    turn = actor.tell(RedispatchNotification(notification_id="ntf_1", reason="customer asks"))
    assert (turn.hastened, turn.steps) == (["notification:ntf_1"], [])
    assert [(audit.action, audit.reason) for audit in turn.audits] == [("notification.redispatch", "customer asks")]
    # what has been sent is not sent again, and the bus being healthy is no operator's word
    assert actor.tell(BusHealthy()).hastened == []
    actor.state = msgspec.structs.replace(PENDING, state="sent")
    with pytest.raises(Rejected, match="sent"):
        actor.tell(RedispatchNotification(notification_id="ntf_1", reason="once more"))


async def test_a_redispatch_of_an_event_that_waits_for_its_stream_is_taken_and_answered() -> None:
    # given an event that is neither parked nor published
    class OneEvent:
        async def events(self, stream: str, ids: list[str]) -> list[StoredEvent]:
            return [StoredEvent(OutboxRow(ids[0], "node:n1", "AMENDS_EVT", "", "{}", "", "", 0), "pending", 0)]

    locate = finders(cast("Any", OneEvent()))["outbox"]
    kind, identifier, message = await locate(RedispatchOutbox(outbox_id="evt_1", reason="now"))
    turn = Actor(kind, identifier, Stream(state="blocked", outbox_id="evt_1")).tell(message)
    assert turn.reply_data() == {"outbox_id": "evt_1", "state": "pending"}
    assert [(audit.action, audit.target_ref) for audit in turn.audits] == [("outbox.redispatch", "outbox:evt_1")]
    with pytest.raises(Rejected, match="not parked"):
        Actor(kind, identifier, Stream(state="flowing")).tell(
            (await locate(SkipOutbox(outbox_id="evt_1", reason="now")))[2]
        )
