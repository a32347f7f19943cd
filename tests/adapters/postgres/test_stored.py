"""What is committed, read back while foreign sessions are in the way: trouble of the server, and nobody's crash."""

import asyncpg
import pytest

from amends.delivery.relay import READ_AHEAD
from amends.values.errors import Unavailable
from tests.adapters.postgres.database import Database

STREAM = "AMENDS_EVT"


async def test_a_table_that_a_foreign_session_locks_is_unavailable_to_every_read(database: Database) -> None:
    journal = database.journal
    foreign = await asyncpg.connect(database.superuser_dsn)
    transaction = foreign.transaction()
    await transaction.start()
    await foreign.execute("LOCK TABLE outbox, command_reply, ops_case, nodes, message IN ACCESS EXCLUSIVE MODE")
    for read in (
        lambda: journal.waiting_events(STREAM, 1, READ_AHEAD), lambda: journal.parked_events(STREAM),
        lambda: journal.count_events(STREAM, "node:n1"), lambda: journal.events("", ["evt_1"]),
        lambda: journal.published_events(STREAM, (0, ""), 1, 1), lambda: journal.kept(["shop"], ["k"]),
        lambda: journal.case("case_1"), lambda: journal.read_actor("node", "n1"),
        lambda: anext(journal.live_actors("node")),
    ):  # fmt: skip
        with pytest.raises(Unavailable):
            await read()
    await transaction.rollback()
    await foreign.close()
    assert await journal.waiting_events(STREAM, 1, READ_AHEAD) == []
    assert await journal.kept(["shop"], ["k"]) == []


async def test_what_is_read_all_the_time_is_planned_for_the_tables_as_they_are_and_changes_nothing(
    database: Database,
) -> None:
    for lane in (database.journal._events, database.journal._replies):
        async with lane.connection() as connection:
            assert await connection.fetchval("SHOW plan_cache_mode") == "force_custom_plan"
            assert await connection.fetchval("SHOW default_transaction_read_only") == "on"
