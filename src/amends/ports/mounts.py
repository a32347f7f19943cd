"""Mounts of one machine, as its agent makes and sees them. Real ones, plain ones and broken ones keep this port.

What blocks says so, and is called in a thread that may be given up: a server that is gone can hold it for ever.
"""

from typing import Any, Literal, Protocol

from msgspec import Struct

Mode = Literal["ro", "rw"]


class Mounted(Struct, frozen=True):
    """One line of the mount table. `names` are what its source may be called; `safe`: no set-uid and no devices."""

    path: str
    names: tuple[str, ...]
    mode: Mode
    safe: bool = True


class MountRefused(Exception):
    """A path or a source that is not mounted. `code` is the agent's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Mounts(Protocol):
    """The machine's mounts. `key` is the attachment: of one at most one change runs at a time."""

    def where(self, mount_path: str) -> str:
        """Where that is on this machine. Blocks; raises MountRefused."""
        ...

    def name_of(self, source: dict[str, Any]) -> str:
        """What the table calls that source. Blocks; raises MountRefused."""
        ...

    def prepare(self, path: str) -> bool:
        """Have an empty directory there; true if it was made now. Blocks; raises MountRefused, OSError."""
        ...

    def clear(self, path: str) -> None:
        """Take a directory away that `prepare` made, if it is empty. Blocks."""
        ...

    def table(self) -> list[Mounted]:
        """All that is mounted, later ones over earlier ones."""
        ...

    def foreign(self, own: set[str]) -> list[str]:
        """Paths of mounts that an attachment could have and that are not of those paths. Blocks."""
        ...

    def look(self, path: str) -> None:
        """Ask the server behind a mount. Blocks; raises OSError."""
        ...

    def holders(self, path: str, found: list[str]) -> None:
        """Add who keeps that mount busy. Blocks."""
        ...

    def pending(self, key: str) -> bool:
        """Whether a change begun earlier, even by an agent before this one, has not ended."""
        ...

    async def mount(self, key: str, source: dict[str, Any], path: str, mode: Mode, within_s: float) -> str:
        """Mount; returns what was said, which proves nothing. Raises TimeoutError if it has not ended."""
        ...

    async def unmount(self, key: str, path: str, within_s: float) -> str:
        """Unmount, never by force and never later; returns and raises as `mount`."""
        ...
