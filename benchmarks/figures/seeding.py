"""Many entities out of one real one: its committed row, copied by Postgres with ids and keys of its own.

Each copy is as large as the one it is of, and says nothing that the first does not say but for its names and keys.
What else belongs to an entity (assignment, meter, records) is not copied.
"""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

import asyncpg

from adapters.embedded.postgres import EmbeddedPostgres

LONG_S = 600
# Of the server while it is filled: otherwise it would write most pages twice.
FILLING: Mapping[str, str] = MappingProxyType({"max_wal_size": "16GB", "checkpoint_timeout": "1d"})
# Sixty-eight characters behind the kind, as an Ed25519 key has them.
_KEYS = """
    generate_series($2::int, $3::int) AS n,
    LATERAL (SELECT 'ssh-ed25519 ' || rpad(md5(n::text) || md5(n::text || 'b'), 68, 'A')) AS varied (key)
"""
ALLOCATIONS = f"""
    INSERT INTO allocations
        (allocation_id, state, version, due_us, body, live, ended_state, account_id, node_id, cleanup_pending)
    SELECT left(allocation_id, 10) || lpad(n::text, 22, '0'), state, version, due_us,
           body || jsonb_build_object(
               'node_id', 'b-' || n, 'key_line', key, 'trace_id', md5(n::text), 'span_id', left(md5(n::text), 16),
               'rental', jsonb_set(body -> 'rental', '{{access,host_key}}', to_jsonb(key))),
           live, ended_state, account_id, 'b-' || n, cleanup_pending
    FROM allocations, {_KEYS} WHERE allocation_id = $1
"""  # noqa: S608 - nothing of a stranger's
NODES = f"""
    INSERT INTO nodes (node_id, state, version, due_us, body, live, ended_state, ssh_host_key)
    SELECT 'b-' || n, state, version, due_us, body || jsonb_build_object('ssh_host', 'b-' || n, 'ssh_host_key', key,
           'boot_id', 'boot-b-' || n, 'labels', body -> 'labels' || '{{"site": "b"}}'), live, ended_state, key
    FROM nodes, {_KEYS} WHERE node_id = $1
"""  # noqa: S608 - the same


async def seed(server: EmbeddedPostgres, table: str, statement: str, of: str, count: int) -> None:
    """So many copies of the entity `of`, in a database that no runtime holds now; then all is as after a while."""
    half = count // 2
    await asyncio.gather(_copied(server, statement, of, 1, half), _copied(server, statement, of, half + 1, count))
    connection = await asyncpg.connect(server.superuser_dsn)
    try:
        await connection.execute(f"VACUUM ANALYZE {table}", timeout=LONG_S)  # now, and not while something is measured
        await connection.execute("CHECKPOINT", timeout=LONG_S)
    finally:
        await connection.close()


async def _copied(server: EmbeddedPostgres, statement: str, of: str, first: int, last: int) -> None:
    connection = await asyncpg.connect(server.dsn)
    try:
        epoch = await connection.fetchval("SELECT epoch FROM journal_head")
        await connection.execute("SELECT set_config('amends.epoch', $1, false)", str(epoch))
        await connection.execute(statement, of, first, last, timeout=LONG_S)
    finally:
        await connection.close()
