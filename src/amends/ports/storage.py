"""What a storage provider stands on: directories that hold namespaces, and which addresses may mount them (api.md 7).

A backend never deletes, truncates, renames, re-owns or re-quotas anything in a namespace: it has no verb for that.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct

Mode = Literal["ro", "rw"]
Access = tuple[str, str]  # namespace and address


class Trouble(Exception):
    """What was asked was not done, or not all of it (`partial`). `retryable`: another try may mend it."""

    def __init__(self, code: str, message: str, *, retryable: bool = True, partial: bool = False) -> None:
        super().__init__(message)
        self.code, self.message, self.retryable, self.partial = code, message, retryable, partial


class Capabilities(Struct, frozen=True):
    """What a provider can do. No `mount_path_prefixes`: any path will do."""

    modes: tuple[Mode, ...] = ("ro", "rw")
    multi_attach: bool = False
    mount_path_prefixes: tuple[str, ...] = ()
    enforcement: str = ""


class Usage(Struct, frozen=True):
    """What a namespace holds, as of then. `enforced`: something keeps it below its quota."""

    used_bytes: int
    as_of_us: int
    enforced: bool


class Backend(Protocol):
    """The provider's own part; all raise `Trouble`. An access is one (namespace, address) with one mode."""

    shared: bool
    """Whether nodes of one address have one access: nobody tells them apart, and that is no harm."""

    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    async def locate(self, namespace_id: str, node_address: str) -> str:
        """The address that access is given to: what a node's name stands for now, if that is one machine."""
        ...

    async def apply(self, namespace_id: str, address: str, mode: Mode) -> dict[str, Any]:
        """Give access with exactly this mode, again too; how a node mounts it (`source`)."""
        ...

    async def restore(self, wanted: Mapping[Access, Mode]) -> Mapping[Access, Trouble]:
        """Give all these again, looking once at what there is; those that could not be given."""
        ...

    async def withdraw(self, namespace_id: str, address: str) -> None:
        """Take access away; of what is absent that is done at once. Afterwards nothing given before takes effect."""
        ...

    async def look(self, namespace_id: str, address: str) -> Mode | Literal[""]:
        """The mode of the access that there is, read back and not remembered; empty: none."""
        ...

    async def usage(self, namespace_id: str) -> Usage:
        """What the namespace holds."""
        ...

    async def close(self) -> None:
        """End what is still under way."""
        ...
