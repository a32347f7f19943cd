"""Files that only the runtime's own user reads, written whole or not at all."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

TOKEN_FILE = "operator.token"  # noqa: S105 - a file's name


def write_private(path: Path, text: str) -> None:
    """Put `text` at `path`, mode 0600: a crash or a full disk leaves what was there before."""
    draft = path.with_name(f"{path.name}.tmp")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """The secret that stands at `path`; one is made where there is none, and an empty one is none."""
    found = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    if not found:
        found = make()
        write_private(path, found)
    return found


def operator_token(state_dir: Path) -> str:
    """The token of the operator of this installation, where none is configured."""
    return kept_secret(state_dir / TOKEN_FILE, lambda: secrets.token_urlsafe(32))
