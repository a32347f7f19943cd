"""An anchor: both chains' heads at one instant, signed, kept where the database's owner cannot write. Pure.

What is signed is the canonical JSON (keys sorted, no spaces) of all fields but `signature`: a raw Ed25519 signature, in
hex. `key` is the public key as OpenSSH writes it, ``ssh-ed25519 base64``.
"""

import msgspec
from msgspec import Struct

from amends.values.canonical import canonical


class Anchored(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of an anchor file. `seq` and `digest` are the digest chain's head, the other two the audit chain's."""

    at_us: int
    epoch: int
    seq: int
    digest: str
    audit_seq: int
    audit_hash: str
    key: str
    signature: str = ""

    def signed(self) -> bytes:
        """What the signature is over."""
        fields = msgspec.structs.asdict(self)
        del fields["signature"]
        return canonical(fields)

    def line(self) -> str:
        """The line of the file."""
        return canonical(self).decode() + "\n"


def parsed(line: bytes) -> Anchored | None:
    """The anchor of a line; None for what is none."""
    try:
        return msgspec.json.decode(line, type=Anchored)
    except msgspec.MsgspecError:
        return None
