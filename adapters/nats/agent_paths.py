"""Where an attachment may be mounted on this machine. Both kinds of mounts keep these rules."""

import os
import pwd
from contextlib import suppress
from pathlib import Path
from typing import Final

from amends.ports.mounts import MountRefused
from amends.values.mount_path import inside, refusal

FIRST_USER: Final = 1000  # homes of accounts below it are places such as /var/spool
LAST_USER: Final = 60_000


def where(root: str, mount_path: str) -> str:
    """The path on this machine, whose own root is below `root`. Blocks; raises MountRefused."""
    check(mount_path)
    real_root = os.path.realpath(root)
    path = real_root.rstrip("/") + mount_path
    parent = path.rpartition("/")[0] or "/"
    if os.path.realpath(parent) != parent:
        raise MountRefused("path_not_allowed", "a symbolic link lies on the way to it")
    return path


def check(mount_path: str) -> None:
    """Refuse what nobody accepts, and the homes of this machine's accounts. Raises MountRefused."""
    if why := refusal(mount_path):
        raise MountRefused("path_not_allowed", why)
    for home in _homes():
        if inside(mount_path, home):
            raise MountRefused("path_not_allowed", f"mount_path lies in {home}, which is somebody's home")


def _homes() -> list[str]:
    found = [entry.pw_dir for entry in pwd.getpwall() if FIRST_USER <= entry.pw_uid <= LAST_USER]
    return [home for home in found if home.startswith("/") and home != "/"]


def prepare(path: str) -> bool:
    """Have an empty directory there, made now or not. Blocks; raises MountRefused, OSError."""
    folder = Path(path)
    try:
        folder.mkdir(mode=0o755, parents=True)
    except FileExistsError:
        if folder.is_symlink() or not folder.is_dir():
            raise MountRefused("path_taken", "there is something there that is no directory") from None
        with os.scandir(path) as entries:
            if any(entries):
                raise MountRefused("path_taken", "the directory there is not empty") from None
        return False
    return True


def clear(path: str) -> None:
    """Take an empty directory away; one that is not empty, or carries something, stays. Blocks."""
    with suppress(OSError):
        Path(path).rmdir()
