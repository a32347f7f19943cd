"""The DSN for those who only read, where the owner may make no role for them."""

import asyncpg
import pytest

from adapters.postgres.reader import read_only_dsn
from tests.adapters.postgres.database import Database


async def test_the_owner_s_own_login_is_read_only_in_the_form_that_libpq_knows(database: Database) -> None:
    dsn = read_only_dsn(database.dsn)
    assert dsn.endswith("&options=-c%20default_transaction_read_only%3Don")
    assert read_only_dsn("postgresql://a@b/c").startswith("postgresql://a@b/c?options=")
    connection = await asyncpg.connect(dsn)
    try:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("CREATE TABLE anything ()")
    finally:
        await connection.close()
