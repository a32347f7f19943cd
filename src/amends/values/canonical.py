"""Canonical JSON and the hashes made of it: the matrix, the policy, idempotency, the audit chain."""

import hashlib
from typing import Any, Final

import msgspec

_encoder = msgspec.json.Encoder(order="sorted")
ZERO_HASH = "0" * 64
# What decoding of JSON raises, whatever the bytes: text that is none and depth without end are no error of the decoder.
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces; equal values give equal bytes."""
    return _encoder.encode(value)


def sha256(data: bytes) -> str:
    """Lower-case hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def chain_hash(prev_hash: str, fields: tuple[Any, ...]) -> str:
    """`audit_log.hash`: SHA-256 of the previous hash (hex) and the canonical bytes of the row's fields.

    The fields are those of `AuditRow` in order, without `prev_hash` and `hash`, with `details` as an object.
    """
    return sha256(prev_hash.encode() + _encoder.encode(fields))
