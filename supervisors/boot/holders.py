"""Which holders of the lease are known to have ended: those that worked in this state directory before us.

A lock on one file of the directory is held by each process that works in it, and falls with the process, also on
kill -9. The file names the last ones that had the lock; whoever has it now knows that they are gone, and need not
watch a lease of theirs run out. A runtime elsewhere, or beside us in the same directory, is never on the list.
"""

import fcntl
import os
from pathlib import Path

REMEMBERED = 10


class Holders:
    """The file `holders` of a state directory."""

    def __init__(self, state_dir: Path, holder: str) -> None:
        self._path, self._holder = state_dir / "holders", holder
        self._descriptor: int | None = None
        self._ended: tuple[str, ...] = ()

    def is_dead(self, holder: str) -> bool:
        """Whether that holder's process has certainly ended."""
        self.enter()
        return holder in self._ended

    def enter(self) -> None:
        """Take the lock if it is free, and stand on the list for those after us; idempotent."""
        if self._descriptor is not None:
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody works here, or this file system has no locks: the lease has to be watched
            os.close(descriptor)
            return
        self._ended = tuple(os.pread(descriptor, 4096, 0).decode("ascii", "replace").split())
        lines = (*self._ended[-REMEMBERED:], self._holder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, "".join(f"{line}\n" for line in lines).encode(), 0)
        self._descriptor = descriptor

    async def aclose(self) -> None:
        """Give the lock back; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor, self._ended = None, ()
