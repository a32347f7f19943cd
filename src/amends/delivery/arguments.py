"""The arguments of the steps of delivery, as they are committed with an intent and reach an adapter."""

from typing import Any

from msgspec import Struct


class NoArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """Of a step that needs none."""


class PublishArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """A notification on its way to the bus."""

    subject: str
    body: dict[str, Any]
    message_id: str


class RepublishArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of what a wiped stream lost: from a place (instant, id) on, and what became of the pages before.

    Up to 0.1 a page had neither counts nor a number.
    """

    stream: str
    until_us: int
    place: tuple[int, str]
    request_id: str
    counts: dict[str, int] = {}
    number: int = 0
