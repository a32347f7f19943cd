"""The statements the relay and a republish live on, on a real Postgres."""

from collections.abc import Sequence

import asyncpg
from msgspec import Struct

from adapters.postgres.statements import statement
from amends.ports.journal import Turn
from amends.turn.seal import seal
from amends.values.records import ROWS, OutboxMarkRow, OutboxRow
from tests.adapters.postgres.database import Database

STREAM = "AMENDS_EVT"


def event(name: str, created_us: int = 1, stream: str = STREAM) -> OutboxRow:
    """`n1.3` is the third event of the entity n1."""
    return OutboxRow(name, name.partition(".")[0], stream, name, "{}", "t", "s", created_us)


async def commit(database: Database, *turns: Sequence[Struct]) -> None:
    """Several turns in one transaction."""
    sealed = []
    for rows in turns:
        turn = Turn()
        turn.rows = list(rows)
        sealed.append(turn)
    commit = seal(sealed, database.book.head, ROWS)
    await database.journal.commit(commit)
    database.book.head = commit.after


async def waiting(database: Database, upto: int, limit: int = 100, apart: tuple[str, ...] = ()) -> list[str]:
    rows = await database.read.rows("waiting_outbox", STREAM, upto, limit, apart)
    return [row["outbox_id"] for row in rows]


async def test_what_waits_is_read_in_the_order_of_the_commits_up_to_a_place(database: Database) -> None:
    await commit(database, [event("b.0")], [event("a.0"), event("a.1"), event("x.0", stream="OTHER")], [event("a.2")])
    head = database.book.head.seq
    await commit(database, [event("a.3")])
    assert await waiting(database, head) == ["b.0", "a.0", "a.1", "a.2"]
    assert await waiting(database, head, 2) == ["b.0", "a.0"]
    # what stands behind a parked one is left out until it is settled
    await commit(database, [OutboxMarkRow("a.1", "parked", 1, None), OutboxMarkRow("a.0", "published", 1, 5)])
    assert await waiting(database, head) == ["b.0"]
    assert await database.read.rows("parked_outbox", STREAM) == [{"outbox_id": "a.1", "entity": "a"}]
    assert await database.read.rows("count_waiting_outbox", STREAM) == [{"waiting": 3}]
    await commit(database, [OutboxMarkRow("a.1", "skipped", 0, None)])
    assert await waiting(database, head + 10) == ["b.0", "a.2", "a.3"]
    assert await waiting(database, head + 10, 100, ("a",)) == ["b.0"]


async def test_of_several_marks_in_one_commit_the_last_counts(database: Database) -> None:
    names = [f"a.{number}" for number in range(20)]
    await commit(database, [event(name) for name in names])
    refused = [OutboxMarkRow(name, "pending", 1, None) for name in names]
    acknowledged = [OutboxMarkRow(name, "published", 2, 5) for name in names]
    await commit(database, refused, acknowledged)
    found = await database.all("SELECT DISTINCT state, attempts, published_us FROM outbox")
    assert found == [{"state": "published", "attempts": 2, "published_us": 5}]


async def test_a_page_of_what_was_published_costs_as_much_late_in_a_long_history_as_at_its_start(
    database: Database,
) -> None:
    # given a long history
    await database.force(
        """INSERT INTO outbox SELECT 'evt_' || lpad(n::text, 8, '0'), 'a', 'AMENDS_EVT', 's', '{}', 't', 's', n / 2,
           'published', 1, 1, 1, 202601 FROM generate_series(0, 49999) AS n; ANALYZE outbox"""
    )
    # when read by pages from an instant on, then it comes whole, in the order of time, up to the last instant
    place, found = (24_000, ""), []
    while page := await database.read.rows("published_since", STREAM, *place, 24_900, 500):
        found += [row["outbox_id"] for row in page]
        place = (page[-1]["created_us"], page[-1]["outbox_id"])
    assert found == [f"evt_{n:08}" for n in range(48_000, 49_802)]
    # and no page looks at what lies before it
    connection = await asyncpg.connect(database.dsn)
    try:
        query = f"EXPLAIN (ANALYZE, FORMAT TEXT) {statement('published_since')}"
        plan = "\n".join(row[0] for row in await connection.fetch(query, STREAM, 24_000, "", 24_900, 500))
    finally:
        await connection.close()
    assert "outbox_created" in plan
    assert "Sort  (" not in plan  # each month's part is in order, and they are merged
    assert "Rows Removed by Filter" not in plan
