"""`audit verify` over all rows: whatever a superuser does past every trigger is named, with table and key."""

import msgspec

from adapters.postgres.digests import DigestVerdict, verify_digests
from amends.domain.domain import covered, rows_of
from amends.ports.journal import Turn
from amends.turn.seal import seal
from amends.values.anchors import Anchored
from supervisors.rental import RENTAL
from tests.adapters.journals import command, reply
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import exhausted_cleanup, whole_story

COVERED = covered((RENTAL,))


async def verdict_of(database: Database, *anchors: Anchored) -> DigestVerdict:
    return await verify_digests(database.dsn, COVERED, anchors)


def anchor(database: Database) -> Anchored:
    """The heads as they are now."""
    head = database.book.head
    return Anchored(
        at_us=1, epoch=head.epoch, seq=head.seq, digest=head.digest, audit_seq=head.audit_seq, audit_hash=head.hash,
        key="k",
    )  # fmt: skip


async def test_an_empty_database_is_valid(database: Database) -> None:
    verdict = await verdict_of(database)
    assert (verdict.valid, verdict.commits, verdict.rows, verdict.older) == (True, 0, 0, 0)


async def test_what_the_runtime_has_written_is_valid_row_by_row(database: Database) -> None:
    await whole_story(database.book)
    anchored = anchor(database)
    await exhausted_cleanup(database.book, "n3")
    said: list[str] = []
    verdict = await verify_digests(database.dsn, COVERED, [anchored], said.append)
    assert verdict.findings == []
    assert (verdict.valid, verdict.head, verdict.older) == (True, database.book.head.digest, 0)
    (count,) = await database.all("SELECT count(*) AS steps FROM step")
    assert count["steps"] > 5
    assert f"step: {count['steps']} rows" in said


CREDIT = (
    "INSERT INTO ledger_entries VALUES ('entry_forged', 'acct1', NULL, 'credit', 1000000, 'usd', 'k', 'h', NULL, NULL, "
    "1, 1)"
)
TWIN = """INSERT INTO outbox SELECT outbox_id, entity, stream, subject, '{}', trace_id, span_id, created_us, 'pending',
    0, NULL, jseq, 0 FROM outbox WHERE month >= 1 LIMIT 1"""
FORGERIES = [
    ("UPDATE nodes SET body = body || '{\"ssh_user\": \"me\"}' WHERE node_id = 'n1'", "nodes", "rewritten"),
    ("UPDATE allocations SET state = 'active' WHERE state = 'released'", "allocations", "rewritten"),
    ("UPDATE notifications SET version = version + 1", "notifications", "rewritten"),
    ("DELETE FROM accounts", "accounts", "missing"),
    ("INSERT INTO nodes SELECT 'n9', state, version, due_us, body - 'ssh_host_key' FROM nodes LIMIT 1", "nodes",
     "slipped in"),
    ("INSERT INTO actors VALUES ('thing', 't1', 'on', 1, NULL, '{}')", "actors", "slipped in"),
    ("UPDATE meters SET rate_uminor_per_hour = 1", "meters", "rewritten"),
    ("UPDATE meters SET stopped_us = stopped_us + 1 WHERE state = 'stopped'", "meters", "rewritten"),
    (CREDIT, "ledger_entries", "slipped in"),
    ("DELETE FROM compensation WHERE sequence = 1", "compensation", "missing"),
    ("UPDATE compensation SET outcome = 'partial'", "compensation", "rewritten"),
    ("UPDATE failure SET message = 'nothing'", "failure", "rewritten"),
    ("UPDATE recovery_run SET final_outcome = 'recovered' WHERE final_outcome <> 'recovered'", "recovery_run",
     "rewritten"),
    ("UPDATE step SET code = 'x' WHERE state = 'failed'", "step", "rewritten"),
    ("UPDATE outbox SET state = 'skipped', month = 202601", "outbox", "rewritten"),
    (TWIN, "outbox", "stands twice"),
    ("DELETE FROM outbox WHERE outbox_id = (SELECT min(outbox_id) FROM outbox)", "outbox", "missing"),
    ("UPDATE ops_case SET evidence = '{\"a\":1}'", "ops_case", "rewritten"),
    ("UPDATE ops_case SET target_ref = 'node:n9'", "ops_case", "rewritten"),
    ("UPDATE command_reply SET reply = '{}'", "command_reply", "rewritten"),
    ("UPDATE command SET caller = 'me'", "command", "rewritten"),
    ("UPDATE notifications SET live = NOT live", "notifications", "a column does not say what its body says"),
    ("UPDATE nodes SET ended_state = 'retired' WHERE node_id = 'n1'", "nodes", "a column does not"),
    ("UPDATE allocations SET account_id = 'mine'", "allocations", "a column does not"),
    ("UPDATE assignments SET node_id = 'n9'", "assignments", "rewritten"),
    ("UPDATE debts SET attempts = attempts + 1", "debts", "rewritten"),
    ("UPDATE audit_log SET jseq = 1 WHERE seq = (SELECT max(seq) FROM audit_log)", "audit_log", "not the entry"),
    ("UPDATE journal_digest SET leaves = '{}' WHERE seq = 3", "journal_digest", "rewritten"),
    ("DELETE FROM journal_digest WHERE seq = 3", "journal_digest", "missing"),
    ("UPDATE journal_head SET seq = seq - 1", "journal_head", "rewritten"),
]  # fmt: skip


async def test_every_forgery_is_named_with_its_table_and_key(database: Database) -> None:
    await whole_story(database.book)
    await exhausted_cleanup(database.book, "n3")
    known = (await verdict_of(database)).findings
    assert known == []
    for forgery, table, what in FORGERIES:
        await database.force(forgery)
        found = (await verdict_of(database)).findings
        new = [finding for finding in found if finding not in known]
        assert any(each.table == table and what in each.what for each in new), (forgery, new)
        known = found


async def test_one_changed_row_is_all_that_is_told(database: Database) -> None:
    await whole_story(database.book)
    await database.force("UPDATE nodes SET state = 'ready', version = version + 1 WHERE node_id = 'n1'")
    (finding,) = (await verdict_of(database)).findings
    assert (finding.table, finding.key) == ("nodes", "node:n1")
    assert finding.what == "rewritten: state, version, due_us, body"


async def test_a_message_that_was_taken_in_cannot_be_put_back(database: Database) -> None:
    await whole_story(database.book)
    leaves = await database.all("SELECT leaves::json -> 'message' ->> 0 AS id FROM journal_digest WHERE seq > 0")
    taken = next(row["id"] for row in leaves if row["id"] is not None)
    await database.force(f"INSERT INTO message VALUES ('{taken}', 'node', 'n1', 'X', '{{}}', '', '', '', '', 1, 1)")
    (finding,) = (await verdict_of(database)).findings
    assert (finding.table, finding.key, finding.what[:10]) == ("message", taken, "slipped in")


async def test_what_is_kept_for_a_week_may_be_forgotten_but_not_changed(database: Database) -> None:
    await whole_story(database.book)
    turn = Turn()
    turn.rows = [command("x", "already_exists"), reply("x")]
    commit = seal([turn], database.book.head, rows_of((RENTAL,)))
    await database.journal.commit(commit)
    database.book.head = commit.after
    refused = await database.all("SELECT FROM command WHERE error_code <> ''")
    await database.force("UPDATE command_reply SET reply = 'other' WHERE key = 'x'")
    (finding,) = (await verdict_of(database)).findings
    assert (finding.table, finding.what) == ("command_reply", "rewritten: key, body_hash, reply")
    assert await database.journal.forget(1 << 60) > 0
    assert await database.all("SELECT FROM command_reply") == []
    assert (await verdict_of(database)).valid
    assert (len(refused) > 0, await database.all("SELECT FROM command WHERE error_code <> ''")) == (True, [])


async def test_a_history_cut_without_a_seam_shows_against_an_anchor_only(database: Database) -> None:
    await whole_story(database.book)
    before = database.book.head
    await exhausted_cleanup(database.book, "n3")
    anchored = anchor(database)
    # everything of the last commits, with both heads set back: a copy from a moment ago looks the same
    await database.force(
        f"UPDATE journal_head SET seq = {before.seq}, audit_seq = {before.audit_seq}, hash = '{before.hash}', "
        f"digest = '{before.digest}'; DELETE FROM audit_log WHERE seq > {before.audit_seq}; "
        f"DELETE FROM journal_digest WHERE seq > {before.seq}"
    )
    findings = (await verdict_of(database, anchored)).findings
    assert any("tail cut: anchored" in each.what and each.key == str(anchored.seq) for each in findings)


async def test_a_head_that_was_anchored_is_part_of_the_chain(database: Database) -> None:
    await whole_story(database.book)
    true = anchor(database)
    assert (await verdict_of(database, true)).valid
    for forged in (
        msgspec.structs.replace(true, digest="f" * 64),
        msgspec.structs.replace(true, audit_hash="f" * 64),
        msgspec.structs.replace(true, audit_seq=true.audit_seq - 1),
    ):
        (finding,) = (await verdict_of(database, forged)).findings
        assert finding.what == "rewritten: another head was anchored at this turn"
