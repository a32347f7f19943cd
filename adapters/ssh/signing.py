"""Signatures with the Ed25519 keys that OpenSSH writes: of the anchors of the audit and digest chains."""

from pathlib import Path

import asyncssh

from adapters.ssh.client_key import generate_client_key

ALGORITHM = b"ssh-ed25519"
RAW_BYTES = 64
# RFC 8709: string "ssh-ed25519", then the raw signature as a string.
_FRAME = len(ALGORITHM).to_bytes(4, "big") + ALGORITHM + RAW_BYTES.to_bytes(4, "big")


class Signer:
    """Signs with the private key at `path`, made there (0600) if there is none; `public` is its public line.

    Raises OSError or ValueError if what is there is no Ed25519 key.
    """

    def __init__(self, path: Path) -> None:
        self.public = " ".join(generate_client_key(path).split()[:2])
        if not self.public.startswith(f"{ALGORITHM.decode()} "):
            raise ValueError(f"{path} holds no Ed25519 key")
        self._key = asyncssh.read_private_key(path)

    def sign(self, data: bytes) -> str:
        """The raw signature, in hex."""
        return self._key.sign(data, ALGORITHM)[-RAW_BYTES:].hex()


def public_line(text: str) -> str:
    """``ssh-ed25519 base64`` of a public key line; raises ValueError for what is none."""
    kind, key, *_ = [*text.split(), "", ""]
    if kind != ALGORITHM.decode():
        raise ValueError(f"no line of an Ed25519 public key: {text[:40]!r}")
    asyncssh.import_public_key(f"{kind} {key}")
    return f"{kind} {key}"


def is_signed(public: str, data: bytes, signature: str) -> bool:
    """Whether that key has made the signature over the data."""
    try:
        raw = bytes.fromhex(signature)
        return len(raw) == RAW_BYTES and asyncssh.import_public_key(public).verify(data, _FRAME + raw)
    except ValueError:
        return False
