"""After a burst: the writer's statements find their rows by key, not by walking what has just died (no vacuum yet)."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from adapters.postgres.committing import numbered
from adapters.postgres.connect import connect
from adapters.postgres.statements import statement
from amends.values.records import OutboxMarkRow, StepEndRow
from tests.adapters.postgres.database import Database

ROWS = 50_000
MAX_BUFFERS = 10  # to find one row: a few index pages and the row; a walk takes hundreds


@pytest.fixture
async def writer(database: Database) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """A session with the writer's settings, on tables of which 50 000 rows have just ended."""
    connection = await connect(database.dsn, epoch=1, by_key=True)
    await connection.execute("SET lock_timeout = '30s'")
    for table in ("step_open", "outbox_open", "message"):
        await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    await connection.execute(
        f"""INSERT INTO step SELECT 'step_' || lpad(n::text, 9, '0'), 'node:n1', 'ssh.probe', 1, 'intended', 'k',
                   'node:n1', '{{}}', '{{}}', 't', 's', 1, NULL, NULL, '', '', 1, n
            FROM generate_series(1, {ROWS}) AS n"""
    )
    await connection.execute(
        f"""INSERT INTO outbox SELECT 'evt_' || lpad(n::text, 9, '0'), 'node:n1', 'AMENDS_EVT', 's', '{{}}', 't', 's',
                   n, 'pending', 0, NULL, n FROM generate_series(1, {ROWS}) AS n"""
    )
    await connection.execute(
        f"""INSERT INTO message SELECT 'evt_' || lpad(n::text, 9, '0'), 'node', 'n1', 'T', '{{}}', 't', 's', 'a', '', n,
                   n FROM generate_series(1, {ROWS}) AS n"""
    )
    last = ROWS - 1  # one of each lives
    await connection.execute(f"UPDATE step SET state = 'done', ended_us = 2, month = 202601 WHERE jseq <= {last}")
    await connection.execute(
        f"UPDATE outbox SET state = 'published', month = 202601, published_us = 2 WHERE jseq <= {last}"
    )
    await connection.execute(f"DELETE FROM message WHERE jseq <= {last}")
    # What autovacuum does first: the planner knows that hardly anything is intended, the indexes still hold the dead.
    await connection.execute("ANALYZE step, outbox, message")
    yield connection
    await connection.close()


def buffers(plan: dict[str, Any]) -> int:
    """Pages the top node of a plan has touched, its children included."""
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


@pytest.mark.slow
async def test_a_row_is_found_by_its_key_however_many_have_just_ended(writer: "asyncpg.Connection[Any]") -> None:
    step, event = f"step_{ROWS:09}", f"evt_{ROWS:09}"
    statements: list[tuple[str, tuple[Any, ...]]] = [
        ("write_step_end", (numbered([(StepEndRow(step, "done", 1, 2, "", "", 1), 9)]), [step])),
        ("write_outbox_mark", (numbered([(OutboxMarkRow(event, "published", 1, 2), 9)]), [event])),
        ("consume", ([event],)),
    ]
    touched = {}
    for name, args in statements:
        found = await writer.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement(name)}", *args)
        (top,) = json.loads(found) if isinstance(found, str) else found
        touched[name] = buffers(top["Plan"]["Plans"][0])
    assert all(count <= MAX_BUFFERS for count in touched.values()), touched
