"""The private directory of the Unix socket through which alone the embedded Postgres is reached."""

import os
import stat
import tempfile
from pathlib import Path

from adapters.embedded.account import Account

SOCKET_NAME_BYTES = len("/.s.PGSQL.5432")
SOCKET_PATH_LIMIT_BYTES = 107
SEPARATORS = frozenset(",'\"\\")


def socket_directory(home: Path, account: Account | None) -> Path:
    """Where the socket lies: a private directory below `home`, or below /tmp where that path is too long.

    A socket's path has at most 107 bytes, and a comma or a quote would not survive its way through
    Postgres' and the client's settings. The directory below /tmp is remembered and used again.
    """
    uid = account[0] if account else os.geteuid()
    near = home / "socket"
    short_enough = len(os.fsencode(near)) + SOCKET_NAME_BYTES <= SOCKET_PATH_LIMIT_BYTES
    if short_enough and not SEPARATORS & set(str(near)):
        near.mkdir(mode=0o700, exist_ok=True)
        return _given_to(near, account)
    pointer = home / "socket-directory"
    if pointer.exists():
        known = Path(pointer.read_text(encoding="utf-8").strip())
        if _is_private(known, uid):
            return known
    short = _given_to(Path(tempfile.mkdtemp(prefix="amends-", dir="/tmp")), account)
    pointer.write_text(f"{short}\n", encoding="utf-8")
    return short


def _is_private(directory: Path, uid: int) -> bool:
    """Whether it is a real directory (no link) of `uid` that nobody else enters."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not stat.S_IMODE(found.st_mode) & 0o077


def _given_to(directory: Path, account: Account | None) -> Path:
    directory.chmod(0o700)
    if account is not None:
        os.chown(directory, *account)
    return directory
