"""Ids: TypeIDs the runtime mints, names callers choose, and the ids that spans derive from records.

Knows no clock and no source of randomness: both are handed in, so a decision stays a pure function.
"""

import hashlib
import re
from functools import lru_cache

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
# Ten bits at a time: 13 look-ups instead of 26 divisions for an id (minting is on the hot path).
_PAIRS = tuple(_ALPHABET[i >> 5] + _ALPHABET[i & 31] for i in range(1024))

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
TYPE_ID = re.compile(r"[a-z]+_[0-7][0-9a-hjkmnp-tv-z]{25}")


def type_id(prefix: str, now_us: int, randomness: bytes) -> str:
    """A TypeID: ``prefix_`` and 26 base32 characters of a UUIDv7 of `now_us` and 10 random bytes."""
    rand = int.from_bytes(randomness[:10], "big")
    rest = 0x7 << 76 | ((rand >> 62) & 0xFFF) << 64 | 0b10 << 62 | (rand & ((1 << 62) - 1))
    return f"{prefix}_{_of_time(now_us // 1000)}{_pairs(rest, 70)}"


@lru_cache(maxsize=16)
def _of_time(now_ms: int) -> str:
    return _pairs(now_ms & ((1 << 48) - 1), 40)


def _pairs(value: int, highest: int) -> str:
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(highest, -1, -10)])


NUMBERED = 1024  # ids of one stem


def stem(now_us: int, randomness: bytes) -> tuple[str, str]:
    """What TypeIDs of that time and those 8 random bytes have in common; `numbered` makes one of it."""
    body = type_id("", now_us, b"\0\0" + randomness[:8])[1:]
    return body[:11], body[13:]


def numbered(prefix: str, stem: tuple[str, str], number: int) -> str:
    """The TypeID of that number below 1024; those of one stem sort by it."""
    return f"{prefix}_{stem[0]}{_PAIRS[number]}{stem[1]}"


def is_name(text: str) -> bool:
    """Whether `text` is a name that callers may give (nodes, accounts, namespaces, providers)."""
    return NAME.fullmatch(text) is not None


def is_type_id(text: str, prefix: str) -> bool:
    """Whether `text` is a TypeID of the given prefix."""
    return text.startswith(prefix + "_") and TYPE_ID.fullmatch(text) is not None


def suffix(identifier: str) -> str:
    """The 26 characters behind the prefix of a TypeID."""
    return identifier.rpartition("_")[2]


@lru_cache(maxsize=8192)  # that of a step is asked for when it is intended, when it runs and when it has ended
def span_id(*parts: str) -> str:
    """The 16-hex span id of a record and its phase; the SQL view `public_v1.span` derives the same."""
    return hashlib.md5("/".join(parts).encode(), usedforsecurity=False).hexdigest()[:16]


def trace_id(*parts: str) -> str:
    """The 32-hex trace id of a record."""
    return hashlib.md5("/".join(parts).encode(), usedforsecurity=False).hexdigest()


def split_ref(ref: str) -> tuple[str, str]:
    """The (kind, id) of a target_ref's first part, such as ``node:n1/user:am-…``."""
    kind, _, identifier = ref.partition("/")[0].partition(":")
    return kind, identifier
