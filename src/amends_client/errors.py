"""What goes wrong, by whose turn it is: refused (yours), unreachable (the world's), ended (it cannot come any more)."""

from collections.abc import Mapping
from typing import Any


class Refused(Exception):
    """The runtime said no, and nothing was done. Sending it again changes nothing but for `retryable` ones.

    `code` and `http` are those of the reference (409 `illegal_transition`, …), `details` names the field or the limit;
    by `request_id` and `trace_id` an operator finds it (`amends trace show`); both are "" where NATS refused it.
    """

    def __init__(
        self, code: str, http: int, message: str, details: Mapping[str, Any], request_id: str = "", trace_id: str = ""
    ) -> None:
        super().__init__(f"{http} {code}: {message}")
        self.code, self.http, self.message, self.details = code, http, message, details
        self.request_id, self.trace_id = request_id, trace_id


class Unreachable(Exception):
    """Nobody answered for good until the deadline.

    With a `key` the outcome of a command is unknown: it may have been done. To make the same call again with this key
    (`key=`) is safe for 7 days: what was done is not done twice. `why` is what was heard last.
    """

    def __init__(self, subject: str, why: str, key: str = "") -> None:
        unknown = f"; it may have been done: call again with key={key!r}, nothing is done twice" if key else ""
        super().__init__(f"{subject}: {why}{unknown}")
        self.subject, self.why, self.key = subject, why, key


class Ended(Exception):
    """What was waited for can never come: `state` was reached, and no way leads on from there.

    `code` is the failure code of an allocation or the reason of an attachment, "" where there is none; `row` is the
    entity's row as far as it is known.
    """

    def __init__(self, entity: str, state: str, wanted: str, code: str, row: Any) -> None:
        super().__init__(f"{entity} is {state}{f' ({code})' if code else ''}, and can never be {wanted} again")
        self.entity, self.state, self.code, self.row = entity, state, code, row


class NoEvents(Exception):
    """The stream of events cannot be read: it is not there, or this user of NATS may not (`$JS.API.CONSUMER.>`)."""
