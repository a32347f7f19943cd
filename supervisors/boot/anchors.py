"""Anchors: the heads of both chains, signed with a key outside the database and kept in a file outside it.

Who can write the database but not this file cannot undo what an anchor says; who wants more copies the file elsewhere
or follows `evt.audit.head.anchored`.
"""

import asyncio
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from adapters.ssh.signing import Signer, is_signed, public_line
from amends.values.anchors import Anchored, parsed
from amends.values.errors import BadConfiguration
from supervisors.boot.files import write_private
from supervisors.paths import chosen_file
from supervisors.settings import Settings

log = logging.getLogger("amends.boot")
KEY, PUBLIC_KEY, FILE = "anchor_key", "anchor_key.pub", "anchors.jsonl"


def key_file(settings: Settings, state_dir: Path) -> Path:
    """The key's file: the configured one, which is there, or that of the state directory."""
    return chosen_file("[anchors].key", settings.anchors.key, state_dir / KEY)


def signer_of(path: Path) -> Signer:
    """Who signs with the key in that file, made where there is none; raises `BadConfiguration`."""
    try:
        return Signer(path)
    except (OSError, ValueError) as error:  # asyncssh's key errors are ValueErrors
        raise BadConfiguration(f"[anchors].key: {path} holds no usable Ed25519 key: {error}") from None


class Anchors:
    """The signing key and the file of this process. Raises `BadConfiguration`."""

    def __init__(self, settings: Settings, state_dir: Path) -> None:
        self._signer = signer_of(key_file(settings, state_dir))
        self.public = self._signer.public
        write_private(state_dir / PUBLIC_KEY, f"{self.public}\n")
        self.path = Path(settings.anchors.file) if settings.anchors.file else state_dir / FILE
        self.kept, self.trouble = 0, ""

    def sign(self, heads: Anchored) -> Anchored:
        """The same with our key and its signature."""
        heads = msgspec.structs.replace(heads, key=self.public)
        return msgspec.structs.replace(heads, signature=self._signer.sign(heads.signed()))

    async def keep(self, anchored: Anchored) -> None:
        """Append it to the file; what keeps it from there is logged, and the next one is tried again."""
        try:
            await asyncio.to_thread(_append, self.path, anchored.line())
        except OSError as error:
            self.trouble = str(error)
            log.warning("the anchor of turn %d is not kept: %s", anchored.seq, error)
        else:
            self.kept, self.trouble = anchored.seq, ""

    def detail(self) -> dict[str, object]:
        """For the supervision tree: the last turn anchored, and what is wrong with the file."""
        return {"kept": self.kept, "trouble": self.trouble}


def _append(path: Path, line: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a crash of the machine has torn the line before
            line = f"\n{line}"
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def trusted_keys(option: str, state_dir: Path) -> frozenset[str]:
    """The public keys named: a line, or a file with one a line; else that of the local runtime."""
    path = state_dir / PUBLIC_KEY
    text = option
    if not option.startswith("ssh-"):
        path = Path(option) if option else path
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfiguration(
                f"no public key to trust: {path}: {error}; name the runtime's with --public-key (its {PUBLIC_KEY})"
            ) from None
    try:
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        keys = frozenset(public_line(line) for line in lines)
    except ValueError as error:  # asyncssh's key errors too
        raise BadConfiguration(f"--public-key: {error}") from None
    if not keys:
        raise BadConfiguration(f"--public-key: {path} holds no key")
    return keys


def read_anchors(path: Path, trusted: frozenset[str]) -> Iterator[tuple[int, Anchored | None, str]]:
    """(line, anchor, "") of every anchor a trusted key has signed; (line, None, why) of every other line."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield (number, *_judged(line, trusted))
    except OSError as error:
        raise BadConfiguration(f"--anchors: {path}: {error}") from None


def _judged(line: bytes, trusted: Iterable[str]) -> tuple[Anchored | None, str]:
    anchor = parsed(line)
    if anchor is None:
        return None, "is no anchor"
    if anchor.key not in trusted:
        return None, f"the anchor of turn {anchor.seq} is not signed by a trusted key"
    if not is_signed(anchor.key, anchor.signed(), anchor.signature):
        return None, f"the anchor of turn {anchor.seq} was rewritten: its signature does not fit"
    return anchor, ""
