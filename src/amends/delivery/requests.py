"""What operators may ask of notifications, streams and outbox rows, and of the cases of every entity."""

from typing import Any, ClassVar, Final

from amends.domain.api import CaseId, Command, Instant, NotificationId, OutboxId, Reason, Request
from amends.turn.decision import EVENTS

_ACCEPTED: Final[dict[str, Any]] = {"accepted": {"type": "boolean"}}
_COUNT: Final = {"type": "integer", "minimum": 0}
_SETTLED: Final[dict[str, Any]] = {
    "outbox_id": {"type": "string"}, "state": {"enum": ["pending", "skipped"]},
}  # fmt: skip


class RedispatchNotification(Request, frozen=True):
    """ops.notification.redispatch"""

    command: ClassVar[Command] = Command(
        subject="ops.notification.redispatch", help="send a waiting or parked one now", role="operator",
        of="notification", by="notification_id", example={"reason": "the receiver is back"}, then={"state": "pending"},
    )  # fmt: skip
    notification_id: NotificationId
    reason: Reason


class CancelNotification(Request, frozen=True):
    """ops.notification.cancel"""

    command: ClassVar[Command] = Command(
        subject="ops.notification.cancel", help="never send it", role="operator", of="notification",
        by="notification_id", example={"reason": "told by telephone"}, then={"state": "cancelled"},
    )  # fmt: skip
    notification_id: NotificationId
    reason: Reason


class CreateStreams(Request, frozen=True):
    """ops.streams.create; the runtime never makes a stream by itself while it runs (R01)."""

    command: ClassVar[Command] = Command(
        subject="ops.streams.create", help="make missing streams", role="operator", of="stream", one=EVENTS, row="",
        answer=_ACCEPTED, example={"reason": "JetStream was wiped"}, beside={"accepted": True},
    )  # fmt: skip
    reason: Reason


class Republish(Request, frozen=True):
    """ops.outbox.republish: what was published since then goes out again, for a stream that was wiped."""

    command: ClassVar[Command] = Command(
        subject="ops.outbox.republish", help="publish events again that a wiped stream lost", role="operator",
        of="stream", one=EVENTS, waits="republish", row="",
        answer={**_ACCEPTED, "complete": {"type": "boolean"}, "stored": _COUNT, "duplicate": _COUNT, "refused": _COUNT,
                "code": {"type": "string"}},
        example={"since_us": 1_768_464_000_000_000, "reason": "JetStream was wiped"},
        beside={"accepted": True, "complete": True, "stored": 412, "duplicate": 0, "refused": 0},
    )  # fmt: skip
    since_us: Instant
    reason: Reason


def _settle(verb: str, text: str, why: str, state: str) -> Command:
    return Command(
        subject=f"ops.outbox.{verb}", help=text, role="operator", of="stream", found="outbox", row="", answer=_SETTLED,
        example={"reason": why}, beside={"outbox_id": "{event}", "state": state},
    )  # fmt: skip


class RedispatchOutbox(Request, frozen=True):
    """ops.outbox.redispatch"""

    command: ClassVar[Command] = _settle(
        "redispatch", "publish a waiting or parked event now", "the stream takes 2 MiB now", "pending"
    )
    outbox_id: OutboxId
    reason: Reason


class SkipOutbox(RedispatchOutbox, frozen=True):
    """ops.outbox.skip"""

    command: ClassVar[Command] = _settle("skip", "never publish it", "nobody can take it", "skipped")


class SettleCase(Request, frozen=True):
    """ops.case.resolve; the entity that has the case gets `ResolveCase`."""

    command: ClassVar[Command] = Command(
        subject="ops.case.resolve", help="close a case that owes nothing", role="operator", found="case",
        row="ops_case", example={"reason": "looked at, nothing is owed"},
        then={"state": "resolved", "resolved_us": 1_768_471_200_000_000},
    )  # fmt: skip
    case_id: CaseId
    reason: Reason


class AcknowledgeCase(SettleCase, frozen=True):
    """ops.case.acknowledge"""

    command: ClassVar[Command] = Command(
        subject="ops.case.acknowledge", help="say that somebody looks after it", role="operator", found="case",
        row="ops_case", example={"reason": "on my way to the machine"},
    )  # fmt: skip
