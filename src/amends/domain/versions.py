"""Versions of what lies in the database as JSON until a later release reads it: state bodies, messages, arguments.

The version stands in the JSON as `v`, without which it is 1. Each shape is declared with pure functions that bring up
the version before it; what a later release wrote is refused, and its entity is held.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta, Struct

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]  # JSON of one version → of the next
NONE: tuple[Upgrade, ...] = ()


class Message(Struct, frozen=True):
    """What one actor tells another: a row of the sender's transaction, kept until the other has taken it in."""

    upgrades: ClassVar[tuple[Upgrade, ...]] = NONE  # the first of version 1


class _Version(Struct):
    v: Annotated[int, Meta(ge=1)] = 1


_version = msgspec.json.Decoder(_Version)


def version_in(text: bytes | str) -> int:
    """The version that a JSON text is of; raises `MsgspecError` where it says none."""
    return _version.decode(text).v


def stamped(value: Mapping[str, Any], upgrades: Sequence[Any]) -> Mapping[str, Any]:
    """What this release writes: with its version, unless that is 1."""
    return {**value, "v": len(upgrades) + 1} if upgrades else value


def brought_up(found: dict[str, Any], version: int, upgrades: Sequence[Callable[..., Any]], *of: Any) -> dict[str, Any]:
    """JSON of that version in this release's shape; raises `ValidationError` where it cannot be brought into it.

    `of`: what the upgrades get beside it.
    """
    refuse_later(version, len(upgrades) + 1)
    try:
        for upgrade in upgrades[version - 1 :]:
            found = upgrade(found, *of)
    except Exception as error:
        why = f"it cannot be brought up from version {version}: {type(error).__name__}: {error}"
        raise msgspec.ValidationError(why) from error
    return found


def newest(text: bytes | str, upgrades: Sequence[Upgrade]) -> dict[str, Any]:
    """A stored JSON object in this release's shape, without its version; raises `MsgspecError`."""
    found: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    version = msgspec.convert(found, _Version).v if "v" in found else 1
    found.pop("v", None)
    return brought_up(found, version, upgrades)


def refuse_later(version: int, newest_known: int) -> None:
    """Raise `ValidationError` for a version that this release does not know."""
    if version > newest_known:
        raise msgspec.ValidationError(f"it is of version {version}, this release reads up to {newest_known}")
