"""Messages every actor may get from the runtime itself, and the envelope that carries any message."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from amends.ports.steps import Outcome
from amends.values.errors import Rejected
from amends.values.records import QuarantineRow


class StepDone(Struct, frozen=True):
    """A try of a step has ended."""

    step_id: str
    name: str
    attempt: int
    target: str
    args: dict[str, Any]
    outcome: Outcome
    started_us: int
    ended_us: int
    trace_id: str
    span_id: str

    @property
    def ok(self) -> bool:
        """Whether it is done."""
        return self.outcome.kind == "done"

    @property
    def duration_ms(self) -> int:
        """How long the try took."""
        return max(0, (self.ended_us - self.started_us) // 1000)

    @property
    def ref(self) -> str:
        """`<trace id>:<span id>` of the span of this try (`compensated_action_ref`)."""
        return f"{self.trace_id}:{self.span_id}"


class TimerFired(Struct, frozen=True):
    """A durable timer of this actor is due; the runtime has already taken it off its state."""

    name: str


class TurnRefused(Struct, frozen=True):
    """The database refused the turn that `message` led to; nothing of it was written."""

    message: Any
    code: str
    text: str
    tries: int
    started_us: int = 0  # when that turn was decided


class Pause(Struct, frozen=True):
    """Stop this actor until a person resolves the case of that kind.

    `quarantined`: the message that is set aside in the same turn, if that is why.
    """

    kind: str
    evidence: dict[str, Any]
    quarantined: QuarantineRow | None = None


class ResolveCase(Struct, frozen=True):
    """An operator settles the open case of that kind on this actor, or (`acknowledge`) only says it is seen.

    `row` is the case's view row, for the reply; `found` what was read for its kind beside.
    """

    kind: str
    case_id: str
    reason: str
    acknowledge: bool = False
    row: dict[str, Any] = {}
    found: Any = None


class CommandInfo(Struct):
    """Who sent a command, under which key, and where its trace hangs."""

    caller: str
    key: str
    body_hash: str
    subject: str
    request_id: str
    trace_id: str
    span_id: str
    parent_span_id: str
    received_us: int
    expected_version: int | None = None
    operator: str = ""
    accounts: tuple[str, ...] = ("*",)  # those the caller may speak for
    link: str = ""  # the span, <trace id>:<span id>, of a caller whose trace this is not


Reply = Callable[[dict[str, Any] | None, Rejected | None], None]


class Envelope:
    """A message on its way into a turn, with what its records need: actor, request, trace."""

    __slots__ = (
        "actor", "command", "done", "fresh", "message", "message_id", "priority", "reply", "request_id", "span_id",
        "trace_id", "tries",
    )  # fmt: skip

    def __init__(
        self,
        message: Any,
        *,
        trace_id: str = "",
        span_id: str = "",
        actor: str = "runtime",
        request_id: str = "",
        message_id: str = "",
        priority: bool = False,
        command: CommandInfo | None = None,
        reply: Reply | None = None,
        done: Callable[[bool], None] | None = None,
        fresh: bool = False,
    ) -> None:
        self.message = message
        self.trace_id, self.span_id = trace_id, span_id
        self.actor, self.request_id = actor, request_id
        self.message_id = message_id
        self.priority = priority
        self.command = command
        self.reply = reply
        self.done = done
        self.fresh = fresh  # the actor's id was minted just now: there is nothing to read back
        self.tries = 0
