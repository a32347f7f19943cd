"""A file that has its new content or its old one, whatever happens."""

import os
from pathlib import Path


def replace_file(file: Path, content: bytes) -> None:
    """Write beside it, flush, rename, flush the folder. Raises OSError; blocks."""
    part = file.with_suffix(".new")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    part.replace(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
