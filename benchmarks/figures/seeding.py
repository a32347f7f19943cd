"""Many entities out of one real one: its committed row, copied by Postgres with ids and keys of its own.

Each copy is as large as the one it is of, and says nothing that the first does not say but for its names and keys.
What else belongs to an entity (assignment, meter, records) is not copied.
"""

from typing import Any

import asyncpg

from adapters.embedded.postgres import EmbeddedPostgres

LONG_S = 600
# Sixty-eight characters, as an Ed25519 key has them.
_KEY = "'ssh-ed25519 ' || rpad(md5(n::text) || md5(n::text || 'b') || md5(n::text || 'c'), 68, '0')"
ALLOCATIONS = f"""
    INSERT INTO allocations
        (allocation_id, state, version, due_us, body, live, ended_state, account_id, node_id, cleanup_pending)
    SELECT left(allocation_id, 10) || lpad(n::text, 22, '0'), state, version, due_us, live_body, live, ended_state,
           account_id, 'b-' || n, cleanup_pending
    FROM allocations, generate_series(1, $2) AS n,
    LATERAL (SELECT body || jsonb_build_object(
        'node_id', 'b-' || n, 'key_line', {_KEY}, 'trace_id', md5(n::text), 'span_id', left(md5(n::text), 16),
        'rental', body -> 'rental' || jsonb_build_object('access', body #> '{{rental,access}}' || jsonb_build_object(
            'host', 'b-' || n, 'host_key', {_KEY})))) AS varied (live_body)
    WHERE allocation_id = $1
"""  # noqa: S608 - nothing of a stranger's
NODES = f"""
    INSERT INTO nodes (node_id, state, version, due_us, body, live, ended_state, ssh_host_key)
    SELECT 'b-' || n, state, version, due_us, body || jsonb_build_object('ssh_host', 'b-' || n, 'ssh_host_key', {_KEY},
           'boot_id', 'boot-b-' || n, 'labels', body -> 'labels' || '{{"site": "b"}}'), live, ended_state, {_KEY}
    FROM nodes, generate_series(1, $2) AS n WHERE node_id = $1
"""  # noqa: S608 - the same


async def seed(server: EmbeddedPostgres, statement: str, of: str, count: int) -> None:
    """So many copies of the entity `of`, in a database that no runtime holds now; then all is as after a while."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(server.dsn)
    try:
        epoch = await connection.fetchval("SELECT epoch FROM journal_head")
        await connection.execute("SELECT set_config('amends.epoch', $1, false)", str(epoch))
        await connection.execute(statement, of, count, timeout=LONG_S)
    finally:
        await connection.close()
    connection = await asyncpg.connect(server.superuser_dsn)
    try:
        await connection.execute("VACUUM ANALYZE", timeout=LONG_S)  # now, and not while something is measured
        await connection.execute("CHECKPOINT", timeout=LONG_S)
    finally:
        await connection.close()
