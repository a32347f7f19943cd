"""What the client needs of NATS, as a protocol: one request, and the messages of a stream. Tests script it."""

from collections.abc import AsyncGenerator, Mapping
from typing import Final, Protocol

PREFIX: Final = "amends.v1."


class Silence(Exception):
    """No answer to one request, for the reason that the text says; it may have arrived all the same."""


class Link(Protocol):
    """A connection. Subjects are whole ones."""

    async def request(self, subject: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> bytes:
        """The answer's body. Raises `Silence`, and `Refused` where NATS itself says no."""
        ...

    def follow(self, subject: str, *, latest: bool = False) -> AsyncGenerator[bytes]:
        """All that stream AMENDS_EVT holds of that subject, in its order, then what comes; for ever, over reconnects.

        `latest`: of what it holds only the last message of each subject. Raises `NoEvents`.
        """
        ...
