"""The runtime's own SSH key: made once, kept in a file that only its owner reads. Knows no node."""

import os
from contextlib import suppress
from pathlib import Path

import asyncssh


def generate_client_key(path: Path) -> str:
    """Make an ed25519 key at `path` (0600) unless one is there; return the line `ssh-ed25519 base64`.

    The file appears whole or not at all, so a crash leaves nothing that a later start would trip over. Raises
    OSError, or asyncssh.KeyImportError if what is there is no private key.
    """
    if not path.exists():
        _create(path, asyncssh.generate_private_key("ssh-ed25519"))
    return asyncssh.read_private_key(path).export_public_key("openssh").decode("ascii").strip()


def fingerprint(public_line: str) -> str:
    """`SHA256:…` of a public key line, as ssh prints it."""
    return asyncssh.import_public_key(public_line).get_fingerprint("sha256")


def _create(path: Path, key: asyncssh.SSHKey) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.new")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.export_private_key("openssh"))
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        path.hardlink_to(part)  # unlike a rename it never replaces a key made meanwhile
    part.unlink()
