"""Files and directories that a person has named: why one cannot be used, said before anything is done with it."""

import os
import stat
from pathlib import Path

from amends.values.errors import BadConfiguration

NOT_FOR_FILES = ("/proc", "/sys")  # the kernel's own: nothing can be made there, by root neither
WRITABLE = "name a directory that this user may write"


def directory_fault(path: Path) -> str:
    """Why `path` cannot be a directory of ours, made where it is missing; "" if it can. Nothing is made."""
    path = path.absolute()
    try:
        part = next(part for part in (path, *path.parents) if _is_there(part))
        if not stat.S_ISDIR(part.stat().st_mode):
            return f"{part} is no directory"
        kernels = {os.stat(name).st_dev for name in NOT_FOR_FILES if os.path.isdir(name)}  # noqa: PTH112, PTH116
        if part.stat().st_dev in kernels:
            return f"{part} is the kernel's, no place for files"
        longest = os.pathconf(part, "PC_NAME_MAX")
    except OSError as error:
        return error.strerror or str(error)
    if any(len(os.fsencode(name)) > longest for name in path.relative_to(part).parts):
        return "File name too long"
    if os.access(part, os.R_OK | os.W_OK | os.X_OK):
        return ""
    return f"{part} is on a read-only file system" if _is_read_only(part) else f"{part}: Permission denied"


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def made_directory(path: Path, said: str, *, mode: int = 0o777) -> Path:
    """The same path, made where it is missing; raises `BadConfiguration`, with `said` as what named it."""
    why = directory_fault(path)
    try:
        if not why:
            path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        raise BadConfiguration(f"{said}: {path} cannot be used: {why}; {WRITABLE}")
    return path


def file_fault(path: Path) -> str:
    """Why `path` is no file that we can read; "" if it is one."""
    try:
        with path.open("rb"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def text_fault(path: Path) -> str:
    """Why `path` is no file of text (UTF-8) that we can read; "" if it is one."""
    try:
        path.read_text(encoding="utf-8")
    except OSError as error:
        return error.strerror or str(error)
    except UnicodeDecodeError as error:
        return f"it is no text: {error}"
    return ""


def chosen_file(said: str, configured: str, own: Path) -> Path:
    """The file that the setting `said` names, which must be readable; without one our own."""
    if not configured:
        return own
    if why := file_fault(Path(configured)):
        raise BadConfiguration(f"{said}: the file {configured!r} cannot be read: {why}")
    return Path(configured)


def told(error: OSError) -> str:
    """What a person needs of an error of the operating system: the path and the reason."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason
