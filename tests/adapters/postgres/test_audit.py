"""`audit verify` on a real chain, whole and damaged."""

import pytest

from adapters.postgres.audit import verify_audit
from amends.values.canonical import ZERO_HASH
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import whole_story


async def test_an_empty_chain_is_valid(database: Database) -> None:
    verdict = await verify_audit(database.dsn)
    assert (verdict.valid, verdict.entries, verdict.head_hash) == (True, 0, ZERO_HASH)


async def test_a_real_chain_is_valid_and_ends_at_the_journal_s_head(database: Database) -> None:
    await whole_story(database.book)
    verdict = await verify_audit(database.dsn)
    head = database.book.head
    assert (verdict.valid, verdict.entries, verdict.head_hash) == (True, head.audit_seq, head.hash)
    anchored = (await database.all("SELECT hash FROM audit_log WHERE seq = 5"))[0]["hash"]
    later = await verify_audit(database.dsn, after_seq=5, after_hash=anchored)
    assert (later.valid, later.entries, later.head_hash) == (True, head.audit_seq - 5, head.hash)


@pytest.mark.parametrize(
    ("damage", "first_bad"),
    [
        ("UPDATE audit_log SET reason = 'nobody knows' WHERE seq = 4", 4),
        ("""UPDATE audit_log SET details = '{"a": 1}' WHERE seq = 7""", 7),
        ("UPDATE audit_log SET actor = 'somebody' WHERE seq = 1", 1),
        ("DELETE FROM audit_log WHERE seq = 3", 3),
        ("DELETE FROM audit_log WHERE seq = 1", 1),
        ("UPDATE audit_log SET hash = repeat('0', 64) WHERE seq = 6", 6),
        ("UPDATE audit_log SET prev_hash = repeat('0', 64) WHERE seq = 6", 6),
    ],
)
async def test_any_damage_is_found_where_it_is(database: Database, damage: str, first_bad: int) -> None:
    await whole_story(database.book)
    await database.force(damage)
    verdict = await verify_audit(database.dsn)
    assert (verdict.valid, verdict.first_bad_seq) == (False, first_bad)
    assert verdict.problem


async def test_a_cut_tail_is_found_by_the_journal_s_head(database: Database) -> None:
    await whole_story(database.book)
    last = database.book.head.audit_seq
    await database.force(f"DELETE FROM audit_log WHERE seq > {last - 2}")
    verdict = await verify_audit(database.dsn)
    assert (verdict.valid, verdict.first_bad_seq) == (False, last - 1)
