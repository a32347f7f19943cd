"""A long history out of a short real one: every row of it, again and again, with ids, times and places of its own.

The rows are those that a runtime has written for real rentals; a copy has other ids (the part of a TypeID that is its
time), other trace ids, a later place in the journal, and a time in its month. What ties a copy together ties it still.
Hashes are copied as they are: such a history is as large and as slow as a real one, and no chain.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg

from adapters.embedded.postgres import EmbeddedPostgres

LONG_S = 7200
# Whose rows belong to rentals; replies are kept for a week only, and accounts and nodes are no more than there are.
TABLES = (
    "command", "failure", "recovery_run_closed", "recovery_action", "compensation", "step_closed", "outbox_closed",
    "audit_log", "journal_digest", "allocations", "notifications", "assignments", "debts", "meters", "ledger_entries",
    "ledger_key", "compensation_key", "ops_case",
)  # fmt: skip
PLACES = ("jseq", "begun_jseq", "seq", "audit_seq")
HELPERS = """
CREATE FUNCTION renamed(said text, n bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN regexp_replace(said, '([a-z]_)0[0-9a-z]{9}', '\\1' || '0' || lpad(n::text, 9, '0'), 'g');
CREATE FUNCTION retraced(said text, n bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN said = '' THEN '' ELSE overlay(said PLACING lpad(to_hex(n), 8, '0') FROM 1 FOR 8) END;
"""


async def copied(server: EmbeddedPostgres, months: Sequence[int], copies: int) -> None:
    """Of what is there so many copies in each month, but for the first one, of which it is itself the first."""
    one = await asyncpg.connect(server.superuser_dsn)
    try:
        await one.execute("SET session_replication_role = replica; " + HELPERS, timeout=LONG_S)
        await _move(one, months[0])
        await _parts(server, months)
        for table in TABLES:
            await one.execute(f"CREATE UNLOGGED TABLE first_{table} AS SELECT * FROM {table}")  # noqa: S608 - ours
        step = await one.fetchval("SELECT seq FROM journal_head") + 1
    finally:
        await one.close()
    for place, month in enumerate(months):
        numbers = range(max(1, place * copies), (place + 1) * copies)
        await asyncio.gather(*(_month(server, tables, month, numbers, step) for tables in (TABLES[:8], TABLES[8:])))
    await _settle(server, (len(months) * copies) * step)


async def _parts(server: EmbeddedPostgres, months: Sequence[int]) -> None:
    """One for each month, made by the database's owner as the product makes them."""
    owner = await asyncpg.connect(server.dsn)
    try:
        for month in months:
            bounds = f"FOR VALUES FROM ({month}) TO ({_after(month)})"
            await owner.execute(
                "SELECT amends_add_part(name, name || $1, $2) FROM monthly WHERE NOT EXISTS "
                "(SELECT FROM monthly_part WHERE whole = name AND $3 >= since AND $3 < till)",
                f"_{month}", bounds, month,
            )  # fmt: skip
        await owner.execute("SELECT amends_add_months()")
    finally:
        await owner.close()


def _after(month: int) -> int:
    return month + 89 if month % 100 == 12 else month + 1


async def _move(one: "asyncpg.Connection[Any]", month: int) -> None:
    """What is there lies in that month from now on."""
    for row in await one.fetch("SELECT name FROM monthly"):
        name = row["name"]
        await one.execute(f"ALTER TABLE {name} DETACH PARTITION {name}_first")
        await one.execute(f"UPDATE {name}_first SET month = {month}", timeout=LONG_S)  # noqa: S608 - ours
        await one.execute(f"ALTER TABLE {name} ATTACH PARTITION {name}_first FOR VALUES FROM (1) TO ({_after(month)})")


async def _month(server: EmbeddedPostgres, tables: Sequence[str], month: int, numbers: range, step: int) -> None:
    one = await asyncpg.connect(server.superuser_dsn)
    try:
        await one.execute("SET session_replication_role = replica; SET synchronous_commit = off; SET jit = off")
        for table in tables:
            columns = await one.fetch(
                "SELECT attname AS name, atttypid::regtype::text AS type FROM pg_attribute "
                "WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped", table,
            )  # fmt: skip
            named = [(row["name"], row["type"]) for row in columns]
            said = ", ".join(_values(named, month, step))
            await one.execute(
                f"INSERT INTO {table} ({', '.join(name for name, _ in named)}) SELECT {said} FROM first_{table}, "  # noqa: S608 - ours
                f"generate_series({numbers[0]}::bigint, {numbers[-1]}::bigint) AS n ORDER BY n",
                timeout=LONG_S,
            )
    finally:
        await one.close()


def _values(columns: Sequence[tuple[str, str]], month: int, step: int) -> Iterator[str]:
    begins = f"(extract(epoch FROM timestamptz '{month // 100}-{month % 100:02}-01 00:00+00') * 1000000)::bigint"
    for name, kind in columns:
        if name == "month":
            yield str(month)
        elif name in PLACES:
            yield f"{name} + n * {step}"
        elif name.endswith("_us") and kind == "bigint" and name not in ("unit_us", "window_us"):
            yield f"{name} % 2000000000 + {begins} + (n % 1000) * 2000000000"
        elif name.endswith(("trace_id", "span_id")) or name == "compensated_action_ref":
            yield f"retraced({name}, n)"
        elif kind in ("json", "jsonb"):
            yield f"renamed({name}::text, n)::{kind}"
        elif kind == "text" and name not in ("hash", "prev_hash", "audit_hash", "leaves", "matrix_sha256", "state"):
            yield f"renamed({name}, n)"
        else:
            yield name


async def _settle(server: EmbeddedPostgres, seq: int) -> None:
    """The journal goes on after all that; and everything is as after a while."""
    one = await asyncpg.connect(server.superuser_dsn)
    try:
        await one.execute(
            "SET session_replication_role = replica; UPDATE journal_head SET seq = $1 + 1000000, audit_seq = "
            "(SELECT max(seq) FROM audit_log), hash = (SELECT hash FROM audit_log ORDER BY seq DESC LIMIT 1)".replace(
                "$1", str(seq)
            )
        )
        for table in TABLES:
            await one.execute(f"DROP TABLE first_{table}")
        await one.execute("VACUUM (ANALYZE, FREEZE)", timeout=LONG_S)
        await one.execute("CHECKPOINT", timeout=LONG_S)
    finally:
        await one.close()
