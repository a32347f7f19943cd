"""As whom and in which directory the embedded Postgres runs. Postgres refuses to run as root.

An ordinary user runs it as himself, below his state directory. Root runs it as `nobody` (or as the owner of
existing data), who must be able to enter every directory above the data. Where he cannot (a state directory
below a 0700 home), the data go to /var/lib/amends-embedded, and the state directory remembers where.
"""

import os
import pwd
import stat
import tempfile
from pathlib import Path

from adapters.embedded.process import ServerFailed, logger

SHARED_BASE = Path("/var/lib/amends-embedded")

Account = tuple[int, int]


def server_account(data: Path) -> Account | None:
    """(uid, gid) to become before running Postgres on `data`; None when we run it as ourselves.

    Raises ServerFailed when `data` belongs to somebody else than the ordinary user that we are.
    """
    owner = data.stat() if data.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise ServerFailed(f"{data} belongs to user {owner.st_uid}; start as that user or use another state_dir")
        return None
    if owner is not None and owner.st_uid != 0:
        return owner.st_uid, owner.st_gid
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise ServerFailed(
            "there is no account `nobody` to run Postgres as; start Amends as an ordinary user"
        ) from None
    return nobody.pw_uid, nobody.pw_gid


def closed_to_others(path: Path) -> Path | None:
    """The first of `path` and the directories above it that another account cannot enter; None if it can."""
    for part in (path, *path.parents):
        if part.exists() and not part.stat().st_mode & stat.S_IXOTH:
            return part
    return None


def choose_home(state_dir: Path, as_other: bool) -> Path:
    """The directory for data and log, made when missing. `as_other`: another account must enter it."""
    state_dir.mkdir(parents=True, exist_ok=True)
    if not as_other:
        home = state_dir / "postgres"
        home.mkdir(mode=0o700, exist_ok=True)
        return home
    if not state_dir.stat().st_mode & stat.S_IXOTH:
        state_dir.chmod(stat.S_IMODE(state_dir.stat().st_mode) | stat.S_IXOTH)  # entered, not listed
    home = state_dir / "postgres"
    if closed_to_others(state_dir) is not None:
        home = _home_elsewhere(state_dir)
    home.mkdir(exist_ok=True)
    home.chmod(0o711)
    return home


def _home_elsewhere(state_dir: Path) -> Path:
    pointer = state_dir / "postgres-directory"
    if pointer.exists():
        home = Path(pointer.read_text(encoding="utf-8").strip())
        if home.is_dir():
            return home
    SHARED_BASE.mkdir(mode=0o711, parents=True, exist_ok=True)
    closed = closed_to_others(SHARED_BASE)
    if closed is not None:
        raise ServerFailed(
            f"Postgres must not run as root, and other accounts cannot enter {closed}: chmod o+x {closed}"
        )
    home = Path(tempfile.mkdtemp(prefix="postgres-", dir=SHARED_BASE))
    pointer.write_text(f"{home}\n", encoding="utf-8")
    logger.warning(
        "%s lies in a directory that only root enters, and Postgres must not run as root: its data go to %s",
        *(state_dir, home),
    )
    return home
