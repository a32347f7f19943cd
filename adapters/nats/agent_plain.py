"""Plain mounts, for tests, the demo and machines without root: a link to the source, below a root of their own.

What they show is a table in a file, so far as its links are there: modes are written down and not enforced, an export
of NFS is taken for a directory of this machine, and after another boot nothing is mounted.
"""

import asyncio
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from adapters.nats import agent_paths
from adapters.nats.agent_sources import Bind, source_of
from adapters.nats.durable_file import replace_file
from amends.ports.mounts import Mode, Mounted, MountRefused


class _Kept(msgspec.Struct):
    boot_id: str = ""
    mounts: dict[str, tuple[str, Mode]] = {}  # by path


class PlainMounts:
    """Implements `amends.ports.mounts.Mounts`; /mnt/data is `root`/mnt/data. The table lies in `state_dir`."""

    def __init__(self, root: Path, state_dir: Path, boot_id: str) -> None:
        root.mkdir(parents=True, exist_ok=True)
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root, self._file = str(root), state_dir / "plain-mounts.json"
        self._writing = threading.Lock()
        kept = msgspec.json.decode(self._file.read_bytes(), type=_Kept) if self._file.exists() else _Kept()
        if kept.boot_id != boot_id:
            for path in self._there(kept):
                Path(path).unlink()
                Path(path).mkdir(0o755)
            kept = _Kept(boot_id)
        self._kept = kept

    def where(self, mount_path: str) -> str:
        """That path below the root. Blocks; raises MountRefused."""
        path = self._root + mount_path
        if any(path.startswith(above + "/") for above in self._there(self._kept)):
            raise MountRefused("path_taken", "it lies in what is mounted")
        return agent_paths.where(self._root, mount_path)

    def name_of(self, source: dict[str, Any]) -> str:
        """The directory. Blocks; raises MountRefused."""
        found = source_of(source)
        path = os.path.realpath(found.path if isinstance(found, Bind) else found.export)
        if not Path(path).is_dir():
            raise MountRefused("source_missing", "there is no such directory")
        return path

    def prepare(self, path: str) -> bool:
        """As the port. Blocks; raises MountRefused, OSError."""
        return agent_paths.prepare(path)

    def clear(self, path: str) -> None:
        """As the port. Blocks."""
        agent_paths.clear(path)

    def table(self) -> list[Mounted]:
        """As the port."""
        kept = self._kept
        return [Mounted(path, (kept.mounts[path][0],), kept.mounts[path][1]) for path in self._there(kept)]

    def foreign(self, own: set[str]) -> list[str]:
        """Links below the root of other paths."""
        found: list[str] = []
        for folder, names, _ in os.walk(self._root):
            found.extend(path for path in (f"{folder}/{name}" for name in names) if Path(path).is_symlink())
        return [path for path in found if path not in own]

    def look(self, path: str) -> None:
        """As the port. Blocks; raises OSError."""
        Path(path).stat()

    def holders(self, path: str, found: list[str]) -> None:
        """Nobody: a link is not held."""

    def pending(self, key: str) -> bool:
        """Nothing hangs."""
        return False

    async def mount(self, key: str, source: dict[str, Any], path: str, mode: Mode, within_s: float) -> str:
        """Put a link in the place of the empty directory. Raises MountRefused, OSError."""
        await asyncio.to_thread(self._link, self.name_of(source), path, mode)
        return ""

    async def unmount(self, key: str, path: str, within_s: float) -> str:
        """Put the directory back. Raises OSError."""
        await asyncio.to_thread(self._unlink, path)
        return ""

    def _link(self, name: str, path: str, mode: Mode) -> None:
        with self._writing:
            self._keep({**self._kept.mounts, path: (name, mode)})
            Path(path).rmdir()
            Path(path).symlink_to(name)

    def _unlink(self, path: str) -> None:
        with self._writing:
            if path in self._there(self._kept):
                Path(path).unlink()
                Path(path).mkdir(0o755)
            self._keep({other: kept for other, kept in self._kept.mounts.items() if other != path})

    def _there(self, kept: _Kept) -> list[str]:
        there: list[str] = []
        for path, (name, _) in kept.mounts.items():
            with suppress(OSError):  # no link, or nothing at all
                if str(Path(path).readlink()) == name:
                    there.append(path)
        return there

    def _keep(self, mounts: Mapping[str, tuple[str, Mode]]) -> None:
        kept = _Kept(self._kept.boot_id, dict(mounts))
        replace_file(self._file, msgspec.json.encode(kept))
        self._kept = kept
