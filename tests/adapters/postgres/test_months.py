"""History by month: where rows come to lie, how months are archived, and what is still known of them afterwards."""

import asyncio
import gzip
from pathlib import Path

import asyncpg
import pytest

from adapters.postgres.archives import ArchiveFolder
from adapters.postgres.archiving import SCHEMA, TABLES, Archiving
from adapters.postgres.audit import verify_audit
from adapters.postgres.digests import DigestVerdict, verify_digests
from amends.domain.domain import covered, rows_of
from amends.ports.journal import Turn
from amends.turn.seal import seal
from amends.values.errors import BadConfiguration, Unavailable
from amends.values.records import OutboxMarkRow
from supervisors.rental import RENTAL
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import exhausted_cleanup, whole_story

COVERED = covered((RENTAL,))
FIRST, SECOND = 203102, 203103  # what was there before lies in the part up to the present month


async def month(database: Database, number: int) -> None:
    """It is that month from now on."""
    await database.force(
        f"CREATE OR REPLACE FUNCTION amends_month() RETURNS integer LANGUAGE sql STABLE RETURN {number}"
    )


async def parts(database: Database, table: str) -> dict[str, int]:
    """How many rows lie in each part of a table."""
    rows = await database.all(f"SELECT tableoid::regclass::text AS part, count(*) AS rows FROM {table} GROUP BY 1")
    return {row["part"]: row["rows"] for row in rows}


async def archived(database: Database, before: int, folder: Path, *, drop: bool = True) -> ArchiveFolder:
    async with Archiving(database.dsn, lambda line: None) as archiving:
        plan = await archiving.plan(before, exported=True)
        await archiving.export(plan, folder)
        made = ArchiveFolder(folder)
        await archiving.take_out(plan, made.sha256, drop=drop)
    return made


async def verdict_of(database: Database, *folders: Path) -> DigestVerdict:
    return await verify_digests(database.dsn, COVERED, archives=folders)


async def two_months(database: Database) -> None:
    """A whole story in one month, and another one that goes on with what it left in the next."""
    await month(database, FIRST)
    await database.journal.tidy(0)
    await whole_story(database.book)
    await published(database)
    await month(database, SECOND)
    await database.journal.tidy(0)
    await exhausted_cleanup(database.book, "n3")
    await published(database)


async def published(database: Database) -> None:
    """All events but one have been acknowledged by the broker."""
    waiting = await database.all("SELECT outbox_id FROM outbox_open ORDER BY jseq, outbox_id OFFSET 1")
    turn = Turn()
    turn.rows = [OutboxMarkRow(row["outbox_id"], "published", 1, 5) for row in waiting]
    commit = seal([turn], database.book.head, rows_of((RENTAL,)))
    await database.journal.commit(commit)
    database.book.head = commit.after


async def test_what_is_closed_lies_in_the_part_of_its_month(database: Database) -> None:
    await two_months(database)
    for table, whole in TABLES.items():
        found = await parts(database, table)
        assert {f"{whole}_{FIRST}", f"{whole}_{SECOND}"} <= found.keys(), table
        assert not any(name.endswith("_else") for name in found), table
    assert (await database.read.rows("violations")) == []
    assert (await verdict_of(database)).findings == []


async def test_a_month_without_a_part_costs_nobody_anything(database: Database) -> None:
    # given a runtime whose database nobody has prepared for the month that has come
    await month(database, FIRST)
    await whole_story(database.book)
    assert (await parts(database, "audit_log")).keys() == {"audit_log_else"}
    assert (await verdict_of(database)).findings == []
    # when it is tidied, then the next month has its part, and this one is said to have none
    await database.journal.tidy(0)
    await month(database, SECOND)
    await exhausted_cleanup(database.book, "n3")
    assert set(await parts(database, "audit_log")) == {"audit_log_else", f"audit_log_{SECOND}"}
    async with Archiving(database.dsn, lambda line: None) as archiving:
        with pytest.raises(BadConfiguration, match=r"_else has \d+ rows of these months that came while"):
            await archiving.plan(SECOND, exported=True)


async def test_nobody_waits_for_a_part_that_cannot_be_made_now(database: Database) -> None:
    await month(database, FIRST)
    connection = await asyncpg.connect(database.dsn)
    try:
        async with connection.transaction():
            await connection.execute("SELECT count(*) FROM failure_else")  # as a long verification reads it
            await database.journal.tidy(0)
            assert f"failure_{FIRST}" not in {
                row["part"] for row in await database.all("SELECT part FROM monthly_part")
            }
    finally:
        await connection.close()
    await database.journal.tidy(0)
    assert f"failure_{FIRST}" in {row["part"] for row in await database.all("SELECT part FROM monthly_part")}


async def test_an_archived_month_is_gone_and_all_that_is_open_or_money_is_not(
    database: Database, tmp_path: Path
) -> None:
    await two_months(database)
    kept = ("ledger_entries", "meters", "allocations", "nodes", "notifications", "ops_case", "assignments", "debts")
    before = {table: await database.all(f"SELECT * FROM {table} ORDER BY 1") for table in kept}
    evaluated = await database.all("SELECT * FROM evaluation ORDER BY seq")
    open_before = await database.all("SELECT step_id FROM step_open ORDER BY 1")
    counts = {table: await parts(database, table) for table in TABLES}
    folder = tmp_path / "first"
    made = await archived(database, SECOND, folder)
    # then what it had is in the files, row by row
    assert made.manifest.tables.keys() == TABLES.keys()
    for table, whole in TABLES.items():
        rows = list(made.rows(table))
        left = {part: count for part, count in counts[table].items() if part.endswith((str(SECOND), "_open"))}
        assert await parts(database, table) == left, whole
        assert len(rows) == sum(counts[table].values()) - sum(left.values()) > 0, table
    # and what stays is as it was
    assert {table: await database.all(f"SELECT * FROM {table} ORDER BY 1") for table in kept} == before
    assert await database.all("SELECT step_id FROM step_open ORDER BY 1") == open_before
    assert len(evaluated) > 0
    assert await database.all("SELECT * FROM evaluation ORDER BY seq") == evaluated
    assert await database.read.rows("violations") == []
    # and the runtime goes on
    await exhausted_cleanup(database.book, "n4")
    assert await database.read.rows("violations") == []
    assert (await verify_audit(database.dsn)).valid


async def test_verification_begins_after_the_archive_and_goes_back_with_it(database: Database, tmp_path: Path) -> None:
    await two_months(database)
    whole = await verdict_of(database)
    first, second = tmp_path / "first", tmp_path / "second"
    await archived(database, SECOND, first, drop=False)
    stands = await database.all(f"SELECT count(*) AS parts FROM pg_tables WHERE schemaname = '{SCHEMA}'")
    assert stands[0]["parts"] >= len(TABLES)
    # without the archive, from its end on; with it, all of it, as if nothing had been archived
    after = await verdict_of(database)
    assert (after.valid, after.findings, after.archived) == (True, [], True)
    assert 0 < after.commits < whole.commits
    assert after.older > 0
    full = await verdict_of(database, first)
    assert (full.valid, full.findings, full.archived) == (True, [], False)
    assert (full.commits, full.rows, full.head) == (whole.commits, whole.rows, whole.head)
    assert full.audit.entries == whole.audit.entries
    # and the same of a second one
    await month(database, 203104)
    await database.journal.tidy(0)
    await exhausted_cleanup(database.book, "n4")
    await archived(database, 203104, second)
    assert (await verdict_of(database)).findings == []
    assert (await verdict_of(database, second, first)).findings == []
    partly = await verdict_of(database, second)
    assert (partly.valid, partly.archived) == (True, True)
    with pytest.raises(BadConfiguration, match="is not the archive after which"):
        await verdict_of(database, first)


async def test_what_is_wrong_is_found_after_an_archive_too(database: Database, tmp_path: Path) -> None:
    await two_months(database)
    folder = tmp_path / "first"
    await archived(database, SECOND, folder)
    # a row of before, rewritten: with the archive
    await database.force("UPDATE ledger_entries SET amount_minor = amount_minor + 1")
    assert {each.table for each in (await verdict_of(database, folder)).findings} == {"ledger_entries"}
    # a row slipped in after it: without
    await database.force("UPDATE ledger_entries SET amount_minor = amount_minor - 1")
    await database.force(
        "INSERT INTO ledger_entries SELECT 'entry_forged', account_id, NULL, 'credit', 1000, currency, 'k', 'h', NULL, "
        "NULL, 1, (SELECT seq FROM journal_head) FROM ledger_entries LIMIT 1"
    )
    (found,) = (await verdict_of(database)).findings
    assert (found.table, found.key) == ("ledger_entries", "entry_forged")
    # and the beginning of what is there cannot be cut further
    await database.force("DELETE FROM ledger_entries WHERE entry_id = 'entry_forged'")
    await database.force("DELETE FROM audit_log WHERE seq = (SELECT min(seq) FROM audit_log)")
    assert not (await verdict_of(database)).audit.valid
    assert {row["name"] for row in await database.read.rows("violations")} == {"U1"}


async def test_a_file_that_was_touched_is_refused(database: Database, tmp_path: Path) -> None:
    await two_months(database)
    folder = tmp_path / "first"
    await archived(database, SECOND, folder)
    file = folder / "audit_log.jsonl.gz"
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()).replace(b"runtime", b"nobody1", 1)))
    with pytest.raises(BadConfiguration, match=r"audit_log\.jsonl\.gz is not as it was written"):
        await verdict_of(database, folder)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(BadConfiguration, match="cannot be made out"):
        await verdict_of(database, folder)
    with pytest.raises(BadConfiguration, match="is no archive"):
        await verdict_of(database, tmp_path / "nothing")


async def test_a_month_that_has_no_part_of_its_own_is_not_archived(database: Database) -> None:
    await two_months(database)
    async with Archiving(database.dsn, lambda line: None) as archiving:
        with pytest.raises(
            BadConfiguration, match=r"nothing can be archived before 2020-01: .* closed before 20\d\d-\d\d"
        ):
            await archiving.plan(202001, exported=True)
        # nor what the exporter of spans has still to send
        await database.force("INSERT INTO journal_cursor VALUES ('otlp', 3)")
        with pytest.raises(BadConfiguration, match="exporter of spans has come to turn 3"):
            await archiving.plan(SECOND, exported=True)
        assert (await archiving.plan(SECOND, exported=False)).ends.seq > 3


async def test_somebody_who_reads_keeps_the_months_where_they_are(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two_months(database)
    monkeypatch.setattr("adapters.postgres.archiving.TRIES", 2)
    monkeypatch.setattr("adapters.postgres.archiving.PAUSE_S", 0)
    connection = await asyncpg.connect(database.dsn)
    try:
        async with connection.transaction():
            await connection.execute("SELECT count(*) FROM audit_log")
            with pytest.raises(Unavailable, match="nothing was taken out"):
                await archived(database, SECOND, tmp_path / "first")
    finally:
        await connection.close()
    assert await database.all("SELECT * FROM archived") == []
    assert (await verdict_of(database)).findings == []
    await archived(database, SECOND, tmp_path / "again")


async def test_commits_go_on_while_months_are_taken_out(database: Database, tmp_path: Path) -> None:
    await two_months(database)
    work = asyncio.create_task(archived(database, SECOND, tmp_path / "first"))
    await exhausted_cleanup(database.book, "n4")
    await work
    assert (await verdict_of(database, tmp_path / "first")).findings == []


async def test_history_in_order_is_not_looked_at_again(database: Database) -> None:
    await whole_story(database.book)
    week_us = 7 * 86_400_000_000
    # given a mark that a look has moved, then what is older may be anything to the view
    await database.journal.tidy(database.book.now_us + week_us)
    (mark,) = await database.all("SELECT jseq, audit_seq FROM verified_mark")
    (head,) = await database.all("SELECT seq, audit_seq FROM journal_head")
    assert (mark["jseq"], mark["audit_seq"]) == (head["seq"], head["audit_seq"])
    await database.force("UPDATE outbox SET attempts = attempts; UPDATE audit_log SET prev_hash = 'x' WHERE seq = 2")
    assert await database.read.rows("violations") == []
    assert not (await verdict_of(database)).valid
    # and what comes after it is looked at
    await exhausted_cleanup(database.book, "n3")
    assert await database.read.rows("violations") == []
    await database.force("UPDATE audit_log SET prev_hash = 'x' WHERE seq = (SELECT audit_seq FROM journal_head)")
    assert {row["name"] for row in await database.read.rows("violations")} == {"U1"}


async def test_the_mark_stays_before_what_is_wrong(database: Database) -> None:
    await whole_story(database.book)
    await database.force("UPDATE audit_log SET prev_hash = 'x' WHERE seq = 2")
    await database.journal.tidy(database.book.now_us + 7 * 86_400_000_000)
    assert await database.all("SELECT jseq FROM verified_mark") == [{"jseq": 0}]


async def test_who_does_not_own_the_database_is_told_so(database: Database, tmp_path: Path) -> None:
    await two_months(database)
    reader = database.superuser_dsn.replace("postgres@", "amends_reader@")
    with pytest.raises(BadConfiguration, match="archiving needs the DSN of the database's owner: permission denied"):
        async with Archiving(reader, lambda line: None) as archiving:
            await archiving.plan(SECOND, exported=True)
