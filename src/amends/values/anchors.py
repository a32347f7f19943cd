"""An anchor: both chains' heads at one instant, signed, kept where the database's owner cannot write. Pure.

What is signed is the canonical JSON (keys sorted, no spaces) of all fields but `signature`, and but `mark` where it is
empty: a raw Ed25519 signature, in hex. `key` is the public key as OpenSSH writes it, ``ssh-ed25519 base64``.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Literal

import msgspec
from msgspec import Struct

from amends.values.canonical import UNREADABLE, canonical

Mark = Literal["", "opening", "closing"]
SLIPPED_IN = "slipped in: written while no runtime ran"
CUT = "tail cut: the next runtime found a head before the one that was anchored"
REWRITTEN = "rewritten: the next runtime found another head at this turn"


class Anchored(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of an anchor file. `seq` and `digest` are the digest chain's head, the other two the audit chain's.

    `mark`: "opening" for the heads as a runtime found them before it wrote anything; "closing" for those that it left,
    sure that nothing of its own follows.
    """

    at_us: int
    epoch: int
    seq: int
    digest: str
    audit_seq: int
    audit_hash: str
    key: str
    signature: str = ""
    mark: Mark = ""

    def fields(self) -> dict[str, Any]:
        """By name, without an empty mark: so it was before there were marks, and those lines must still verify."""
        fields = msgspec.structs.asdict(self)
        if not self.mark:
            del fields["mark"]
        return fields

    def signed(self) -> bytes:
        """What the signature is over."""
        fields = self.fields()
        del fields["signature"]
        return canonical(fields)

    def line(self) -> str:
        """The line of the file."""
        return canonical(self.fields()).decode() + "\n"


class Gap(Struct, frozen=True):
    """Turns between the last anchor of one epoch and the first one of a later; not `wrong`: only not vouched for."""

    first: int
    last: int
    what: str
    wrong: bool


def parsed(line: bytes) -> Anchored | None:
    """The anchor of a line; None for what is none."""
    try:
        return msgspec.json.decode(line, type=Anchored)
    except UNREADABLE:
        return None


def gaps(anchors: Iterable[Anchored]) -> list[Gap]:
    """What was written from one runtime's last anchor to the next one's first, by their epochs; in this order."""
    ordered = sorted(set(anchors), key=lambda each: (each.epoch, each.seq, each.at_us))
    found = (_gap(left, taken) for left, taken in pairwise(ordered) if left.epoch != taken.epoch)
    return [gap for gap in found if gap is not None]


def _gap(left: Anchored, taken: Anchored) -> Gap | None:
    if taken.seq < left.seq:
        return Gap(taken.seq + 1, left.seq, CUT, wrong=True)
    if taken.seq == left.seq:
        same = (taken.digest, taken.audit_hash) == (left.digest, left.audit_hash)
        return None if same else Gap(left.seq, left.seq, REWRITTEN, wrong=True)
    first, last = left.seq + 1, taken.seq
    if taken.epoch > left.epoch + 1:
        between = range(left.epoch + 1, taken.epoch)
        away = f"epoch {between[0]}" if len(between) == 1 else f"epochs {between[0]} to {between[-1]}"
        return Gap(first, last, f"of {away}, whose anchors are not here: give the files of all runtimes", False)
    if (left.mark, taken.mark) == ("closing", "opening"):
        return Gap(first, last, SLIPPED_IN, wrong=True)
    return Gap(first, last, f"{last - first + 1} that no anchor vouches for: a runtime ended without a last one", False)
