"""What the runtime and a storage provider say to one another (api.md 7), as types with bounds.

A provider's words go into rows: nothing unprintable, nothing endless, and of a `source` only what a node mounts by.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from amends.ports.storage import Mode
from amends.values.text import printable

MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_REPLY_BYTES: Final = 64 * 1024
MAX_SOURCE_BYTES: Final = 4096
MAX_MESSAGE: Final = 1000
MAX_GRANTS: Final = 256  # that one reply lists

# `(?!\n)`: the end of a pattern also matches before a last newline.
Epoch = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,128}$(?!\n)")]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$(?!\n)")]
Address = Annotated[str, Meta(pattern=r"^[A-Za-z0-9:][A-Za-z0-9._:-]{0,254}$(?!\n)")]
Code = Annotated[str, Meta(pattern=r"^[a-z0-9_]{0,64}$(?!\n)")]
Path = Annotated[str, Meta(pattern=r"^/[^\x00-\x1f\x7f]{0,4095}$(?!\n)")]
Options = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_=.:,-]{0,512}$(?!\n)")]
Word = Annotated[str, Meta(max_length=64)]
Prefixes = Annotated[list[Path], Meta(max_length=64)]


class Request(Struct, frozen=True):
    """The fields of all operations; which of them an operation needs says `NEEDED`."""

    runtime_epoch: Epoch
    grant_id: Id | None = None
    namespace_id: Name | None = None
    node_id: Name | None = None
    node_address: Address | None = None
    mode: Mode | None = None


NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "capabilities": (),
    "usage": ("namespace_id",),
    "grants": ("namespace_id",),
    "verify": ("grant_id", "namespace_id", "node_id"),
    "revoke": ("grant_id", "namespace_id", "node_id"),
    "grant": ("grant_id", "namespace_id", "node_id", "node_address", "mode"),
}


class Observed(Struct, frozen=True):
    """What the provider sees of a grant when it looks."""

    granted: bool | None = None
    mode: Literal["ro", "rw", ""] | None = None


class Listed(Struct, frozen=True):
    """A grant that gives access, as its provider keeps it."""

    grant_id: Id
    node_id: Name
    mode: Mode


class Nfs(Struct, frozen=True, tag_field="type", tag="nfs", omit_defaults=True):
    """A directory that a server exports."""

    server: Address
    export: Path
    options: Options = ""


class Bind(Struct, frozen=True, tag_field="type", tag="bind"):
    """A directory of the node's own machine."""

    path: Path


class Reply(Struct, frozen=True):
    """The fields of all replies. Of capabilities and usage the fields say enough: a status may be missing."""

    status: Literal["ok", "partial", "error"] | None = None
    retryable: bool = False
    code: Code | None = None
    message: str | None = None
    observed: Observed | None = None
    source: Nfs | Bind | None = None
    modes: Annotated[list[Mode], Meta(max_length=8)] | None = None
    multi_attach: bool = False
    mount_path_prefixes: Prefixes = []
    enforcement: Word | bool | None = ""
    used_bytes: Count | None = None
    as_of_us: Count | None = None
    enforced: bool | None = None
    grants: Annotated[list[Listed], Meta(max_length=MAX_GRANTS)] | None = None


_REPLY: Final = msgspec.json.Decoder(Reply)
_REQUEST: Final = msgspec.json.Decoder(Request)


def read_reply(data: bytes) -> Reply:
    """A provider's reply; raises one of `amends.values.canonical.UNREADABLE`."""
    if len(data) > MAX_REPLY_BYTES:
        raise msgspec.ValidationError(f"larger than {MAX_REPLY_BYTES} bytes")
    reply = _REPLY.decode(data)
    if reply.source is not None:
        _check_source(msgspec.to_builtins(reply.source))
    if not all(text.isprintable() for text in (*reply.mount_path_prefixes, str(reply.enforcement))):
        raise msgspec.ValidationError("it has what cannot be printed")
    return reply


def read_request(data: bytes, op: str) -> Request:
    """A runtime's request of an operation of `NEEDED`; raises one of `amends.values.canonical.UNREADABLE`."""
    if len(data) > MAX_REQUEST_BYTES:
        raise msgspec.ValidationError(f"larger than {MAX_REQUEST_BYTES} bytes")
    request = _REQUEST.decode(data)
    missing = [name for name in NEEDED[op] if getattr(request, name) is None]
    if missing:
        raise msgspec.ValidationError(f"{op} needs {', '.join(missing)}")
    return request


def _check_source(source: dict[str, Any]) -> None:
    if len(msgspec.json.encode(source)) > MAX_SOURCE_BYTES:
        raise msgspec.ValidationError(f"a source larger than {MAX_SOURCE_BYTES} bytes")
    path = str(source.get("export") or source.get("path"))
    if not path.isprintable() or ".." in path.split("/"):
        raise msgspec.ValidationError("a source whose path cannot be meant")


def told(message: str) -> str:
    """As much of a message as is kept, and only what can be shown."""
    return printable(message, MAX_MESSAGE)
