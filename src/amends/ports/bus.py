"""The bus: publishing with acknowledgement."""

from typing import Literal, Protocol

from msgspec import Struct


class Published(Struct, frozen=True):
    """What the broker said. `duplicate` counts as published; `poison` blames the payload, `down` does not."""

    kind: Literal["ok", "duplicate", "down", "poison"]
    code: str = ""
    message: str = ""


class Publisher(Protocol):
    """Publishes with acknowledgement to the stream that takes the subject."""

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        """Publish; never raises for what the broker or the way to it does."""
        ...
