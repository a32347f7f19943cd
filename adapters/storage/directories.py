"""The directories below one root, one for each namespace, made by an operator and by nobody else. Only ever read."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from amends.ports.storage import Trouble
from amends.values.errors import BadConfiguration
from amends.values.ids import is_name

BLOCK_BYTES: Final = 512  # the unit of st_blocks


class Directories:
    """Namespaces below `root`; raises `BadConfiguration` if that is no directory."""

    def __init__(self, root: Path) -> None:
        if not root.is_absolute() or not root.is_dir():
            raise BadConfiguration(f"--root {root} must be the absolute path of a directory")
        self.root = root.resolve()

    def path(self, namespace_id: str) -> Path:
        """Where a namespace's directory would be."""
        if not is_name(namespace_id):
            raise Trouble("no_such_namespace", f"{namespace_id!r} is no namespace's name", retryable=False)
        return self.root / namespace_id

    def existing(self, namespace_id: str) -> Path:
        """A namespace's directory. Raises `Trouble` if there is none; a link is none."""
        path = self.path(namespace_id)
        try:
            is_there = stat.S_ISDIR(path.lstat().st_mode)
        except FileNotFoundError:
            is_there = False
        except OSError as error:
            raise Trouble("storage_unreadable", f"{path}: {error.strerror}") from None
        if not is_there:
            raise Trouble(
                "no_such_namespace", f"{path} is no directory; an operator makes it before it is used", retryable=False
            )
        return path


def measure(top: Path, stopped: Callable[[], bool]) -> int:
    """The bytes of all blocks below `top`, without following links or crossing file systems; each file counts once.

    Blocks. Raises `Trouble` where that cannot be told: nobody hides anything in a place that cannot be read.
    """
    seen: set[int] = set()
    waiting, total = [str(top)], 0
    try:
        device = top.lstat().st_dev
    except OSError as error:
        raise Trouble("usage_unknown", f"{top} cannot be looked at: {error.strerror}") from None
    while waiting:
        if stopped():
            raise Trouble("stopping", "the provider is stopping")
        folder = waiting.pop()
        try:
            total += _files(folder, device, seen, waiting)
        except FileNotFoundError:
            continue  # gone meanwhile
        except OSError as error:
            raise Trouble("usage_unknown", f"a directory cannot be read: {error.strerror}") from None
    return total


def _files(folder: str, device: int, seen: set[int], waiting: list[str]) -> int:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        own = os.fstat(opened)
        if own.st_dev != device:
            return 0
        total = own.st_blocks * BLOCK_BYTES
        with os.scandir(opened) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{folder}/{entry.name}")
                    continue
                try:
                    about = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if about.st_nlink > 1 and about.st_ino in seen:
                    continue
                if about.st_nlink > 1:
                    seen.add(about.st_ino)
                total += about.st_blocks * BLOCK_BYTES
        return total
    finally:
        os.close(opened)
