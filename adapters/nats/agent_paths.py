"""Where an attachment may be mounted: what a path may be, whoever asks. Both kinds of mounts keep these rules."""

import os
import pwd
from contextlib import suppress
from pathlib import Path
from typing import Final

from adapters.nats.agent_messages import MAX_PATH_BYTES
from amends.ports.mounts import MountRefused

CLOSED: Final = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
)
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
    """Refuse what is no plain absolute path, and what lies in a home or in the system. Raises MountRefused."""
    try:
        too_long = len(mount_path.encode()) > MAX_PATH_BYTES
    except UnicodeEncodeError:
        raise MountRefused("path_not_allowed", "it is no text") from None
    if too_long or not mount_path.isprintable():
        raise MountRefused("path_not_allowed", f"it is longer than {MAX_PATH_BYTES} bytes or not printable")
    parts = mount_path.split("/")
    if parts[0] or len(parts) < 2 or any(part in ("", ".", "..") for part in parts[1:]):
        raise MountRefused("path_not_allowed", "it is not absolute and plain")
    for closed in (*CLOSED, *_homes()):
        if inside(mount_path, closed):
            raise MountRefused("path_not_allowed", f"it lies in {closed}")


def inside(path: str, folder: str) -> bool:
    """Whether a path is that folder or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


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
