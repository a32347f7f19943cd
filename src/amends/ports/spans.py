"""Whoever takes spans: a receiver of traces, given them in order and again until it acknowledges."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

SpanRow = Mapping[str, Any]  # with the columns of `public_v1.span`


class NotAccepted(Exception):
    """The receiver did not take the spans; the message says why. They stay where they are.

    `for_good`: the same request would be refused again (OTLP forbids to repeat it), a smaller one perhaps not.
    `wait_s`: the receiver does not want to be asked again earlier.
    """

    def __init__(self, message: str, *, for_good: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.for_good, self.wait_s = for_good, wait_s


class Taken(Struct, frozen=True):
    """The request was taken, and so many of its spans rejected for good all the same; `message` says why."""

    rejected: int = 0
    message: str = ""


class SpanReceiver(Protocol):
    """Takes spans with acknowledgement."""

    async def take(self, rows: Sequence[SpanRow]) -> Taken:
        """Send them; raises `NotAccepted`, and `OSError` or `TimeoutError` where nobody answers."""
        ...
