"""Real mounts, by mount(8) and umount(8) as root; what is mounted is what /proc/self/mountinfo says.

Every mount is nosuid and nodev. Unmounting is never lazy and never forced.
"""

import os
import re
from pathlib import Path
from typing import Any, Final

from adapters.nats import agent_machine, agent_paths
from adapters.nats.agent_children import Children
from adapters.nats.agent_sources import Bind, source_of
from amends.ports.mounts import Mode, Mounted, MountRefused
from amends.values.mount_path import inside

ESCAPED: Final = re.compile(r"\\([0-7]{3})")
UNDER: Final = "/mnt"  # whatever is mounted below it could be an attachment; of NFS, whatever is mounted anywhere


class RealMounts:
    """Implements `amends.ports.mounts.Mounts`. `state_dir` is the agent's own."""

    def __init__(self, state_dir: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
        self._children, self._mountinfo = Children(state_dir), mountinfo

    def where(self, mount_path: str) -> str:
        """The path itself. Blocks; raises MountRefused."""
        return agent_paths.where("/", mount_path)

    def name_of(self, source: dict[str, Any]) -> str:
        """`server:/export`, or device and path below its root. Blocks; raises MountRefused."""
        found = source_of(source)
        if not isinstance(found, Bind):
            return found.device
        path = os.path.realpath(found.path)
        if not Path(path).is_dir():
            raise MountRefused("source_missing", "there is no such directory")
        below = [line for line in self._lines() if inside(path, line.path)]
        over = max(reversed(below), key=lambda line: len(line.path))  # of two at one path the later one
        rest = path[len(over.path.rstrip("/")) :]
        return f"{over.device} {over.root.rstrip('/') + rest or '/'}"

    def prepare(self, path: str) -> bool:
        """As the port. Blocks; raises MountRefused, OSError."""
        return agent_paths.prepare(path)

    def clear(self, path: str) -> None:
        """As the port. Blocks."""
        agent_paths.clear(path)

    def table(self) -> list[Mounted]:
        """As the port."""
        return [line.mounted for line in self._lines()]

    def foreign(self, own: set[str]) -> list[str]:
        """Mounts of NFS, and those below /mnt, of other paths."""
        return [
            line.path for line in self._lines()
            if line.path not in own and (line.nfs or inside(line.path, UNDER))
        ]  # fmt: skip

    def look(self, path: str) -> None:
        """Ask for the size as well: a server that is gone cannot answer it from a cache. Blocks; raises OSError."""
        Path(path).stat()
        os.statvfs(path)

    def holders(self, path: str, found: list[str]) -> None:
        """Mounts on it, and processes. Blocks."""
        found.extend(f"mount {line.path}" for line in self._lines() if line.path.startswith(path + "/"))
        agent_machine.holders(path, found)

    def pending(self, key: str) -> bool:
        """As the port."""
        return self._children.pending(key)

    async def mount(self, key: str, source: dict[str, Any], path: str, mode: Mode, within_s: float) -> str:
        """As the port. Raises TimeoutError, OSError, MountRefused."""
        found = source_of(source)
        options = ",".join([*([] if isinstance(found, Bind) else found.flags), "nosuid", "nodev", mode])
        kind = ("--bind", "-o", options, "--", found.path) if isinstance(found, Bind) else (
            "-t", "nfs", "-o", options, "--", found.device
        )  # fmt: skip
        return await self._children.run(key, ("mount", *kind, path), within_s)

    async def unmount(self, key: str, path: str, within_s: float) -> str:
        """As the port. Raises TimeoutError, OSError. It asks no path for what it is: a dead server would not answer."""
        return await self._children.run(key, ("umount", "--no-canonicalize", "--", path), within_s)

    def _lines(self) -> list["_Line"]:
        text = self._mountinfo.read_bytes().decode(errors="surrogateescape")
        return [_Line(line) for line in text.split("\n") if line]


class _Line:
    """A line of mountinfo (proc_pid_mountinfo(5))."""

    def __init__(self, line: str) -> None:
        first, _, last = line.partition(" - ")
        _, _, self.device, root, path, options, *_ = first.split(" ")
        kind, source, *more = last.split(" ")
        self.root, self.path, self.nfs = _plain(root), _plain(path), kind in ("nfs", "nfs4")
        flags, deeper = set(options.split(",")), set(more[0].split(",") if more else [])
        mode: Mode = "ro" if "ro" in flags | deeper else "rw"
        server, _, export = _plain(source).rpartition(":/")
        names = (f"{self.device} {self.root}", *([f"{server}:/{export.rstrip('/')}"] if self.nfs else ()))
        self.mounted = Mounted(self.path, names, mode, safe={"nosuid", "nodev"} <= flags)


def _plain(text: str) -> str:
    return ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
