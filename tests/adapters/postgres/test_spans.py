"""Following the journal for spans, and looking traces up."""

from adapters.postgres.spans import SpanReader
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import whole_story


async def test_a_follower_gets_whole_turns_in_order_however_small_its_bites(database: Database) -> None:
    await whole_story(database.book)
    reader = SpanReader(database.read)
    everything, head = await reader.after(0, 1_000_000)
    assert head == database.book.head.seq
    for limit in (1, 2, 5, 40):
        found, cursor = [], 0
        while cursor < head:
            rows, upto = await reader.after(cursor, limit)
            assert upto > cursor
            assert all(cursor < row["jseq"] <= upto for row in rows)
            found += rows
            cursor = upto
        assert found == everything
    assert await reader.after(head, 5) == ([], head)


async def test_recent_traces_come_whole_and_can_be_searched_for(database: Database) -> None:
    entities = await whole_story(database.book)
    reader = SpanReader(database.read)
    assert {row["trace_id"] for row in await reader.recent(limit=2)} <= {
        row["trace_id"] for row in await reader.recent(limit=500)
    }
    assert len({row["trace_id"] for row in await reader.recent(limit=2)}) == 2
    ref = f"allocation:{entities['failed']}"
    own = await reader.recent(limit=500, tags={"amends.entity": ref})
    assert {"recovery R02 remote user setup", "ssh.user-create"} <= {row["name"] for row in own}
    probes = await reader.recent(limit=500, name="ssh.probe")
    assert len({row["trace_id"] for row in probes}) == 2
    assert await reader.recent(until_us=1) == []
    newest = max(row["start_us"] for row in await reader.recent(limit=500))
    assert await reader.recent(since_us=newest + 1) == []
