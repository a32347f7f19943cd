"""The bus: publishing with acknowledgement."""

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct


class Published(Struct, frozen=True):
    """What the broker said. `duplicate` counts as published; `poison` blames the payload, `down` does not."""

    kind: Literal["ok", "duplicate", "down", "poison"]
    code: str = ""
    message: str = ""


class Outgoing(Struct, frozen=True):
    """A message for a stream; `trace`: the (trace id, span id) that it belongs to."""

    subject: str
    payload: bytes
    message_id: str
    trace: tuple[str, str]


TOGETHER_AT_MOST = 1_000  # messages
NOT_TOGETHER = "not_together"  # the code of a broker, or a stream, that takes messages only one by one


class Publisher(Protocol):
    """Publishes with acknowledgement to the stream that takes the subject."""

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        """Publish; never raises for what the broker or the way to it does."""
        ...


class BatchPublisher(Publisher, Protocol):
    """Publishes many with one acknowledgement, too."""

    async def publish_together(self, messages: Sequence[Outgoing]) -> Published:
        """Publish all of them, in their order, or none; never raises either.

        All that is said beside "ok" is said of none in particular: where an acknowledgement is missing they may be
        there. `NOT_TOGETHER`: they are to be published one by one.
        """
        ...
