"""As whom and in which directory the embedded Postgres runs. Postgres refuses to run as root.

An ordinary user runs it as himself, below his state directory. Root runs it as an account of its own, made when it is
missing, since whatever else runs as `nobody` could read and end it; where none can be made, as `nobody`; and always
as the owner of existing data. Who runs it must be able to enter every directory above the data. Where he cannot (a
state directory below a 0700 home), the data go to /var/lib/amends-embedded, and the state directory remembers where.
"""

import os
import pwd
import stat
import subprocess
import tempfile
from pathlib import Path

from adapters.embedded.process import ServerFailed, logger

OWN, SHARED = "amends-postgres", "nobody"
MAKE_WITHIN_S = 10.0
SHARED_BASE = Path("/var/lib/amends-embedded")
POINTER = "postgres-directory"  # of a state directory: where its data are instead

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
    found = _entry(OWN) or _made() or _entry(SHARED)
    if found is None:
        raise ServerFailed(f"there is no account {OWN} or {SHARED} to run Postgres as; start as an ordinary user")
    return found


def _entry(name: str) -> Account | None:
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return found.pw_uid, found.pw_gid


def _made() -> Account | None:
    """The account of its own, made now; None where the machine does not let us."""
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell",
               "/usr/sbin/nologin", "--comment", "embedded Postgres of Amends", OWN]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MAKE_WITHIN_S, check=False)  # noqa: S603
        why = done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    found = _entry(OWN)  # another start may have made it meanwhile
    if found is None:
        logger.warning("no account %s can be made (%s): Postgres runs as %s", OWN, why, SHARED)
    return found


def closed_to_others(path: Path) -> Path | None:
    """The first of `path` and the directories above it that another account cannot enter; None if it can."""
    for part in (path, *path.parents):
        if part.exists() and not part.stat().st_mode & stat.S_IXOTH:
            return part
    return None


def known_home(state_dir: Path) -> Path:
    """The directory where data and log of `state_dir` are, or would be if none was chosen yet; nothing is made.

    Raises ServerFailed where they went elsewhere and are not there any more: an empty database in their place would
    hide the loss.
    """
    pointer = state_dir / POINTER
    try:
        home = Path(pointer.read_text(encoding="utf-8").strip())
    except (FileNotFoundError, NotADirectoryError):
        return state_dir / "postgres"
    except (OSError, UnicodeDecodeError) as error:
        raise ServerFailed(f"{pointer} cannot be read: {error}; start as the user who owns {state_dir}") from None
    if not os.path.isdir(home):  # noqa: PTH112 - Path.is_dir raises where another user's directories are closed
        raise ServerFailed(
            f"{pointer} says that the database of {state_dir} is in {home}, which is not there: put it back there, or "
            f"remove {pointer} to begin with an empty one"
        )
    return home


def holds_database(home: Path) -> bool:
    """Whether a database lies there; of one that we may not look at, its start says whose it is."""
    try:
        return (home / "data" / "PG_VERSION").is_file()
    except PermissionError:
        return True


def choose_home(state_dir: Path, as_other: bool) -> Path:
    """The directory for data and log, made when missing. `as_other`: another account must enter it."""
    state_dir.mkdir(parents=True, exist_ok=True)
    home = known_home(state_dir)
    if not as_other:
        home.mkdir(mode=0o700, exist_ok=True)
        return home
    if not state_dir.stat().st_mode & stat.S_IXOTH:
        state_dir.chmod(stat.S_IMODE(state_dir.stat().st_mode) | stat.S_IXOTH)  # entered, not listed
    closed = closed_to_others(state_dir)
    if closed is not None and home.parent == state_dir:
        if holds_database(home):
            raise ServerFailed(
                f"the database in {home} cannot be reached: Postgres must not run as root, and other accounts cannot "
                f"enter {closed}: chmod o+x {closed}"
            )
        home = _home_elsewhere(state_dir)
    home.mkdir(exist_ok=True)
    home.chmod(0o711)
    return home


def _home_elsewhere(state_dir: Path) -> Path:
    SHARED_BASE.mkdir(mode=0o711, parents=True, exist_ok=True)
    closed = closed_to_others(SHARED_BASE)
    if closed is not None:
        raise ServerFailed(
            f"Postgres must not run as root, and other accounts cannot enter {closed}: chmod o+x {closed}"
        )
    home = Path(tempfile.mkdtemp(prefix="postgres-", dir=SHARED_BASE))
    (state_dir / POINTER).write_text(f"{home}\n", encoding="utf-8")
    logger.warning(
        "%s lies in a directory that only root enters, and Postgres must not run as root: its data go to %s",
        *(state_dir, home),
    )
    return home
