"""Which holders of the lease are known to have ended: those that worked in this state directory before us.

A lock on one file of the directory is held by each process that works in it, and falls with the process, also on
kill -9. The file names the last ones that had the lock; whoever has it now knows that they are gone, and need not
watch a lease of theirs run out. A runtime elsewhere, or beside us in the same directory, is never on the list.

On a network mount a lock may be of each machine alone. So only what ran under this very boot of this kernel is believed
to have ended: each name has the boot id beside it, and one of another boot, or none, is no ground.
"""

import fcntl
import os
from pathlib import Path

REMEMBERED = 10
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Holders:
    """The file `holders` of a state directory: a holder and its boot id a line."""

    def __init__(self, state_dir: Path, holder: str, boot_id: Path = BOOT_ID) -> None:
        self._path, self._holder, self._boot = state_dir / "holders", holder, _boot_of(boot_id)
        self._descriptor: int | None = None
        self._ended: frozenset[str] = frozenset()

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
        known = os.pread(descriptor, 4096, 0).decode("ascii", "replace").splitlines()
        pairs = [line.partition(" ") for line in known]
        self._ended = frozenset(holder for holder, _, boot in pairs if self._boot and boot == self._boot)
        lines = (*known[-REMEMBERED:], f"{self._holder} {self._boot}".rstrip())
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, "".join(f"{line}\n" for line in lines).encode(), 0)
        self._descriptor = descriptor

    async def aclose(self) -> None:
        """Give the lock back; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor, self._ended = None, frozenset()


def _boot_of(path: Path) -> str:
    """The id of this boot of the kernel; "" where it does not tell."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
