"""Public keys that others hand us: read, held to what the contract allows, and written anew.

Knows no connection and no file. Whatever is stored or sent to a node is the line built here from the decoded
key, never the text that came in, so nothing that the text may hide (options, a second line, a quote in a
comment) reaches an `authorized_keys` file.
"""

import base64
import binascii
from typing import Final

import asyncssh
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

MAX_KEY_BYTES: Final = 16 * 1024
MIN_RSA_BITS: Final = 3072
MIN_HOST_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 16384  # the largest that OpenSSH itself reads

KEY_TYPES: Final = frozenset(
    {"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"}
)


class KeyRefused(ValueError):
    """The text is no public key that may be used. `reason` says why, without repeating the text."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def canonical_public_key(text: str) -> tuple[str, str]:
    """Read a customer's public key: (`type base64`, `SHA256:…` fingerprint). Raises KeyRefused."""
    return _line_and_fingerprint(_decode(text))


def canonical_host_key(text: str) -> tuple[str, str]:
    """Read a node's host key, an OpenSSH public key line, by the same rules. Raises KeyRefused.

    The line may end with a newline, as key files do, and an rsa key may have 2048 bits: it is pinned, not trusted.
    """
    return _line_and_fingerprint(_decode(text.removesuffix("\n"), MIN_HOST_RSA_BITS))


def _line_and_fingerprint(key: asyncssh.SSHKey) -> tuple[str, str]:
    blob = base64.b64encode(key.public_data).decode("ascii")
    return f"{key.get_algorithm()} {blob}", key.get_fingerprint("sha256")


def _decode(text: str, min_rsa_bits: int = MIN_RSA_BITS) -> asyncssh.SSHKey:
    if len(text) > MAX_KEY_BYTES:
        raise KeyRefused(f"longer than {MAX_KEY_BYTES} characters")
    # First of all: asyncssh reads the first line of several and says nothing about the others.
    if any(not " " <= character <= "~" for character in text):
        raise KeyRefused("not one line of printable ASCII")
    kind, _, rest = text.strip(" ").partition(" ")
    if kind not in KEY_TYPES:
        raise KeyRefused("does not begin with one of the key types " + ", ".join(sorted(KEY_TYPES)))
    blob = rest.strip(" ").partition(" ")[0]
    try:
        base64.b64decode(blob, validate=True)
        key = asyncssh.import_public_key(f"{kind} {blob}")
    except (binascii.Error, ValueError, OverflowError, asyncssh.Error, UnsupportedAlgorithm) as error:
        raise KeyRefused("does not hold a key of its type") from error
    if key.get_algorithm() != kind:
        raise KeyRefused("does not hold a key of its type")
    _check_rsa(key, min_rsa_bits)
    return key


def _check_rsa(key: asyncssh.SSHKey, min_bits: int) -> None:
    numbers = key.pyca_key
    if isinstance(numbers, RSAPublicKey) and not min_bits <= numbers.key_size <= MAX_RSA_BITS:
        raise KeyRefused(f"an rsa key of {numbers.key_size} bits, not {min_bits} to {MAX_RSA_BITS}")
