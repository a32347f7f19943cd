"""`audit verify`: the chain recomputed from the rows and compared with the journal's head.

`audit_log.hash` = SHA-256 (hex) of the previous entry's hash (hex, as ASCII; 64 zeros before the first) and
the canonical JSON (keys sorted, no spaces, UTF-8) of the array

    [audit_id, seq, at_us, actor, action, target_ref, from_state, to_state, reason, request_id, trace_id,
     recovery_trace_id, epoch, details]

with the table's own values: `details` as an object, and in request_id, trace_id and recovery_trace_id the
empty text where the view `public_v1.audit_log` shows null.

    verdict = await verify_audit(dsn)      # verdict.valid, .entries, .head_hash, .first_bad_seq, .problem
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct

from adapters.postgres.connect import DRIVER_ERRORS, classify, close, connect
from adapters.postgres.statements import statement
from amends.turn.seal import audit_fields
from amends.values.canonical import ZERO_HASH, chain_hash
from amends.values.records import AuditDraft

CHUNK = 1000


class AuditVerdict(Struct, frozen=True):
    """What the chain is worth; where it is not valid, `first_bad_seq` and `problem` say where and why."""

    valid: bool
    entries: int
    head_hash: str
    first_bad_seq: int | None = None
    problem: str = ""


async def verify_audit(dsn: str, *, after_seq: int = 0, after_hash: str = ZERO_HASH) -> AuditVerdict:
    """Verify all of the chain that is not archived, or what follows an anchor (`after_seq`, `after_hash`).

    Raises `Unavailable`.
    """
    connection = await connect(dsn, name="amends-verify", read_only=True)
    try:
        # One snapshot: the head belongs to exactly the entries that are read.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            if not after_seq:
                begins = await connection.fetchrow(statement("archive_end"))
                assert begins is not None
                after_seq, after_hash = begins["audit_seq"], begins["audit_hash"]
            return await verify_chain(connection, after_seq, after_hash)
    except DRIVER_ERRORS as error:
        raise classify(error) from error
    finally:
        await close(connection)


async def verify_chain(
    connection: "asyncpg.Connection[Any]", seq: int = 0, last: str = ZERO_HASH,
    archived: Iterable[Mapping[str, Any]] = (),
) -> AuditVerdict:  # fmt: skip
    """The same on a connection whose transaction is one snapshot; `archived`: the entries between, from archives."""
    head = await connection.fetchrow(statement("read_head"))
    assert head is not None
    entries = 0
    async for row in _entries(connection, archived, seq + 1):
        problem = _problem(row, seq, last)
        if problem:
            # A missing entry is the one that is not there, not the one after it.
            return AuditVerdict(False, entries, last, min(row["seq"], seq + 1), problem)
        entries, seq, last = entries + 1, row["seq"], row["hash"]
    if seq != head["audit_seq"]:
        where = f"the journal's head is entry {head['audit_seq']}, the chain ends at {seq}"
        return AuditVerdict(False, entries, last, min(seq, head["audit_seq"]) + 1, where)
    if last != head["hash"]:
        return AuditVerdict(False, entries, last, seq, "the chain's last hash is not the journal's")
    return AuditVerdict(True, entries, last)


async def _entries(
    connection: "asyncpg.Connection[Any]", archived: Iterable[Mapping[str, Any]], first: int
) -> AsyncIterator[Mapping[str, Any]]:
    for row in archived:
        first = row["seq"] + 1
        yield row
    async for found in connection.cursor(statement("audit_chain"), first, prefetch=CHUNK):
        yield found


def _problem(row: Mapping[str, Any], seq: int, last: str) -> str:
    """What is wrong with the entry that should follow `seq`; "" if nothing is."""
    if row["seq"] != seq + 1:
        return f"entry {seq + 1} is missing"
    if row["prev_hash"] != last:
        return "its prev_hash is not the hash of the entry before it"
    if chain_hash(last, audit_fields(_draft(row), row["seq"])) != row["hash"]:
        return "its hash does not fit its fields"
    return ""


def _draft(row: Mapping[str, Any]) -> AuditDraft:
    return AuditDraft(
        row["audit_id"], row["at_us"], row["actor"], row["action"], row["target_ref"], row["from_state"],
        row["to_state"], row["reason"], row["request_id"], row["trace_id"], row["recovery_trace_id"],
        row["epoch"], msgspec.json.decode(row["details"]),
    )  # fmt: skip
