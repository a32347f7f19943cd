"""The role the runtime works as: it does all that the runtime does, and nothing to tables and triggers."""

import asyncpg
import pytest

from adapters.postgres.connect import connect
from adapters.postgres.lease import Lease
from tests.adapters.postgres.database import Database


@pytest.mark.parametrize(
    "forbidden",
    [
        "ALTER TABLE ledger_entries DISABLE TRIGGER ALL",
        "DROP TRIGGER append_only ON audit_log",
        "CREATE OR REPLACE FUNCTION amends_guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "TRUNCATE audit_log",
        "DELETE FROM audit_log",
        "UPDATE ledger_entries SET amount_minor = 1",
        "INSERT INTO schema_migration VALUES (99, 'x', 'y')",
        "UPDATE journal_digest SET leaves = ''",
    ],
)
async def test_the_runtime_s_sessions_cannot_touch_schema_triggers_or_closed_records(
    database: Database, forbidden: str
) -> None:
    assert database.role.startswith("amends_runtime_")
    connection = await connect(database.dsn, epoch=1, role=database.role)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"permission denied|must be owner"):
        await connection.execute(forbidden)
    await connection.close()


async def test_an_owner_who_may_make_no_role_works_as_before(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    superuser = await asyncpg.connect(database.superuser_dsn)
    await superuser.execute("CREATE ROLE plain LOGIN")
    await superuser.execute("CREATE DATABASE plain_db OWNER plain")
    plain = Lease(f"postgresql://plain@/plain_db?{database.dsn.partition('?')[2]}", "plain")
    try:
        assert await plain.acquire_now() == 1
        with caplog.at_level("INFO", "amends.lease"):
            await plain.prepare("instance-1", "0.3.0", 1)
        assert plain.role == ""
        assert "works as the database's owner" in caplog.text
    finally:
        await plain.aclose()
        await superuser.execute("DROP DATABASE plain_db WITH (FORCE)")
        await superuser.execute("DROP ROLE plain")
        await superuser.close()
