"""The views over what real actors committed: shape, defaults, who may read them, and what must never hold."""

import inspect
import json
import re
from collections import Counter
from typing import Any

import asyncpg
import pytest

from actors.account.messages import CreateAccount
from adapters.otel.verify import verify
from adapters.postgres.journal import journal_of
from adapters.postgres.lease import Lease
from adapters.postgres.reading import ReadSide
from adapters.postgres.spans import SpanReader
from adapters.postgres.statements import views
from adapters.simulated.journal import Database as Simulated
from amends.values import ids
from amends.values.errors import Refused
from supervisors.invariants import rest
from supervisors.rental import RENTAL
from supervisors.simulation.checks import simulated_rows
from supervisors.simulation.stories import STORIES
from supervisors.simulation.sweep import tell
from tests.adapters.postgres.breaks import BREAKS, LISTED, OVERDUE
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import lost_cleanup, ready_node, requested, whole_story
from tests.adapters.postgres.verdicts import Verdict, of_python, of_view, rows_of

# tables.md and traces.md, literally and in order; more columns may follow.
COLUMNS = {
    "account": "account_id currency stripe_customer_id created_us",
    "node": "node_id state labels dirty reserved_by allocated_to epoch boot_id last_heartbeat_us flap_count "
    "quarantine_reasons version",
    "debt": "debt_id node_id kind target_ref allocation_id attachment_id attempts since_us",
    "allocation": "allocation_id account_id node_id state failure_code release_cause cleanup_pending "
    "cleanup_attempts billing_state rate_uminor_per_hour attempt_id external_ref access requested_us activated_us "
    "ended_us trace_id version",
    "meter": "meter_id allocation_id account_id state rate_uminor_per_hour policy_version policy_sha256 started_us "
    "stopped_us stop_cause posted_through_us",
    "ledger_entry": "entry_id account_id meter_id entry_type amount_minor currency idempotency_key payload_hash "
    "rule_id window_start_us created_us",
    "stripe_event": "event_id type state account_id received_us",
    "notification": "notification_id audience account_id kind entity state attempts dedupe_key created_us sent_us",
    "outbox": "outbox_id entity subject state attempts created_us published_us",
    "step": "step_id entity name attempt state idempotency_key started_us ended_us next_attempt_us",
    "failure": "failure_id trace_id span_id timestamp failure_type severity ref message code component cause_ref "
    "propagation_hop recovery_trace_id",
    "recovery_run": "recovery_id recovery_trace_id matrix_row matrix_version matrix_sha256 policy_sha256 started_at "
    "ended_at trigger_type trigger_ref original_trace_id final_outcome entity",
    "recovery_action": "action_id recovery_trace_id sequence timestamp action_type target_ref outcome duration_ms "
    "metadata",
    "compensation": "compensation_id recovery_trace_id sequence timestamp compensated_action_ref "
    "compensated_action_type compensation_type target_ref outcome duration_ms metadata matrix_row comp_key",
    "audit_log": "audit_id seq at_us actor action target_ref from_state to_state reason request_id trace_id "
    "recovery_trace_id epoch details prev_hash hash",
    "ops_case": "case_id kind target_ref state opened_us resolved_us recovery_trace_id commands evidence",
    "span": "trace_id span_id parent_span_id name kind start_us end_us status attributes events links exported",
    "invariant_violation": "name target_ref details",
}


async def test_every_view_has_the_contract_s_columns_in_its_order(database: Database) -> None:
    rows = await database.read.rows("view_columns")
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["view"], []).append(row["name"])
    for view, columns in COLUMNS.items():
        assert found[view][: len(columns.split())] == columns.split(), view


async def test_no_instant_of_a_healthy_story_violates_an_invariant(database: Database) -> None:
    book, seen = database.book, []

    async def look() -> None:
        seen.append(await database.read.rows("violations"))
        assert seen[-1] == []

    book.after_turn = look
    entities = await whole_story(book)
    assert len(seen) > 30
    assert book.state("allocation", entities["failed"]).state == "failed"
    assert book.state("allocation", entities["released"]).cleanup_pending is False


async def test_states_left_out_of_the_body_show_their_defaults(database: Database) -> None:
    await whole_story(database.book)
    rows = await database.all("SELECT * FROM public_v1.allocation ORDER BY state")
    assert [row["state"] for row in rows] == ["failed", "released"]
    assert [row["billing_state"] for row in rows] == ["none", "stopped"]
    assert [row["cleanup_pending"] for row in rows] == [False, False]
    assert [row["cleanup_attempts"] for row in rows] == [2, 1]
    node = await database.read.get("node", "n2")
    assert node["dirty"] is False
    assert node["reserved_by"] is node["allocated_to"] is None
    assert (node["epoch"], node["flap_count"], node["labels"]) == (1, 0, {"site": "a"})
    assert node["state"] == "quarantined"
    assert node["quarantine_reasons"] == ["cleanup_exhausted"]


async def test_a_node_shows_its_assignment_and_its_debts(database: Database) -> None:
    book = database.book
    await whole_story(book)
    await ready_node(book, "n3")
    allocation_id = await requested(book, "n3")
    node = await database.read.get("node", "n3")
    assert (node["reserved_by"], node["allocated_to"], node["dirty"]) == (allocation_id, None, False)
    for step in ("ssh.user-create", "ssh.key-install"):
        await book.end(f"allocation:{allocation_id}", step)
    await book.timer("allocation", allocation_id, "activate")
    node = await database.read.get("node", "n3")
    assert (node["reserved_by"], node["allocated_to"]) == (None, allocation_id)
    assert (await database.read.rows("violations")) == []


async def test_times_are_rfc_3339_and_none_is_null(database: Database) -> None:
    await whole_story(database.book)
    rows = await database.all("SELECT * FROM public_v1.failure ORDER BY failure_id")
    assert re.fullmatch(r"2026-01-15T\d\d:\d\d:\d\d\.\d{6}Z", rows[0]["timestamp"])
    assert {row["cause_ref"] for row in rows} == {None}
    run = (await database.all("SELECT * FROM public_v1.recovery_run WHERE final_outcome = 'recovered'"))[0]
    assert run["started_at"] < run["ended_at"]
    spans = await database.all("SELECT * FROM public_v1.span WHERE parent_span_id = ''")
    assert spans == []


async def test_the_view_s_spans_match_the_records_one_to_one(database: Database) -> None:
    await whole_story(database.book)
    await lost_cleanup(database.book)
    read = database.read
    spans, upto = await SpanReader(read).after(0, 100_000)
    assert upto == database.book.head.seq
    steps = [(row["step_id"], row["state"]) for row in await read.rows("ended_steps")]
    compensations = await read.rows("all_compensations")
    assert len(compensations) >= 8
    assert any(row["duration_ms"] is None for row in compensations)
    assert verify(compensations, spans, steps, elsewhere=()) == []


async def test_a_forgotten_reply_frees_its_key_and_leaves_every_span(database: Database) -> None:
    book, read = database.book, database.read
    await whole_story(book)
    before, _ = await SpanReader(read).after(0, 100_000)
    commands = len(await database.all("SELECT * FROM command"))
    # when all replies are old enough to be forgotten
    forgotten = await database.journal.forget(book.now_us + 1)
    # then nothing of them is kept, and the traces are what they were
    assert forgotten == commands == len(await database.all("SELECT * FROM command"))
    assert await database.journal.forget(book.now_us + 1) == 0
    assert await database.all("SELECT * FROM command_reply") == []
    after, _ = await SpanReader(read).after(0, 100_000)
    assert after == before
    steps = [(row["step_id"], row["state"]) for row in await read.rows("ended_steps")]
    assert verify(await read.rows("all_compensations"), after, steps) == []
    # and a key may be used again, once
    await book.command("account", "acct9", CreateAccount(account_id="acct9", currency="usd"), key="key-1")
    with pytest.raises(Refused, match="command_key"):
        await book.command("account", "acct8", CreateAccount(account_id="acct8", currency="usd"), key="key-1")


async def test_a_span_stays_the_same_while_its_records_grow(database: Database) -> None:
    """What was exported once is never seen with another content, and each span comes exactly once."""
    seen: dict[tuple[str, str], Any] = {}
    spans, cursor = SpanReader(database.read), 0

    async def follow() -> None:
        nonlocal cursor
        rows, cursor = await spans.after(cursor, 512)
        for row in rows:
            key = (row["trace_id"], row["span_id"])
            assert key not in seen
            seen[key] = row

    database.book.after_turn = follow
    await whole_story(database.book)
    final, _ = await spans.after(0, 100_000)
    assert {(row["trace_id"], row["span_id"]): row for row in final} == seen


async def test_a_run_can_be_walked_both_ways(database: Database) -> None:
    entities = await whole_story(database.book)
    run = (await database.all("SELECT * FROM public_v1.recovery_run WHERE matrix_row = 'R02'"))[0]
    assert run["entity"] == f"allocation:{entities['failed']}"
    spans = SpanReader(database.read)
    own = await spans.of([run["recovery_trace_id"]])
    root = next(row for row in own if row["parent_span_id"] is None)
    assert root["name"] == "recovery R02 remote user setup"
    assert root["start_us"] == root["end_us"] == run["started_us"]
    [link] = root["links"]
    original = await spans.of([link["trace_id"]])
    failed = next(row for row in original if row["span_id"] == link["span_id"])
    assert failed["status"] == "ERROR"
    assert failed["events"][0]["attributes"]["failure.message"] == "exit status 1: ‘disk full’"
    started = next(row for row in original if row["name"] == "recovery.started")
    assert started["parent_span_id"] == failed["span_id"]
    assert started["links"] == [{"trace_id": run["recovery_trace_id"], "span_id": root["span_id"]}]
    ended = next(row for row in own if row["name"] == "recovery.ended")
    assert ended["attributes"]["recovery.final_outcome"] == "recovered"
    names = [row["name"] for row in own]
    assert "reverse user-create" in names
    assert "rollback reservation" in names
    undo = next(row for row in own if row["name"] == "ssh.user-remove")
    above = next(row for row in own if row["span_id"] == undo["parent_span_id"])
    assert above["name"] == "reverse user-create"


async def test_a_failure_that_no_span_carries_has_one_of_its_own(database: Database) -> None:
    book = database.book
    await whole_story(book)
    trace, span = "ab" * 16, "cd" * 8
    rows = ", ".join(
        f"('fail_{name}', '{trace}', '{span}', {book.now_us}, 'policy', 'low', 'ref', 'text', 'code', 'part', '', 0, "
        f"'', 1, {seq})"
        for name, seq in (("a", 1), ("b", 2))
    )
    await database.force(f"INSERT INTO failure VALUES {rows}")
    found = await SpanReader(database.read).of([trace])
    assert [(row["span_id"], row["parent_span_id"], row["status"]) for row in found] == [
        (span, None, "ERROR"),
        (ids.span_id("failure", "fail_b"), span, "ERROR"),
    ]


async def seen_after(database: Database, damage: str) -> tuple[Verdict, Verdict]:
    """What the view and what Python say of the database with that damage, which is undone at once."""
    connection = await asyncpg.connect(database.superuser_dsn)
    change = connection.transaction()
    await change.start()
    try:
        await connection.execute(f"SET LOCAL session_replication_role = replica; {damage}")
        return await of_view(connection), await of_python(connection)
    finally:
        await change.rollback()
        await connection.close()


async def test_each_violation_is_seen_for_what_it_is_by_the_view_and_by_python_alike(database: Database) -> None:
    await whole_story(database.book)
    missed, differing = [], []
    for shown, damage in (*BREAKS, OVERDUE):
        view, python = await seen_after(database, damage)
        seen = {f"{name} {ref.partition(':')[0]}: {what}" for name, ref, what in view}
        missed += [] if shown in seen else [(shown, damage, seen)]
        differing += [] if view == python else [(damage, view - python, python - view)]
    assert missed == []
    assert differing == []
    assert await seen_after(database, "") == (Counter(), Counter())


async def test_a_pending_cleanup_is_one_of_a_mount_too_and_its_end_may_be_on_its_way(database: Database) -> None:
    await whole_story(database.book)
    for state in LISTED:
        view, python = await seen_after(database, state)
        assert view == python
        assert [what for name, _, what in view if name == "A4" and "pending cleanup" in what] == []


@pytest.fixture(params=["R04", "R12"])
def simulated(request: pytest.FixtureRequest) -> Simulated:
    """The database of a simulated world after a story in which a runtime died."""
    story = next(each for each in STORIES if each.row == request.param)
    return tell(story, 40, "lost").world.database


async def test_of_a_story_of_the_simulated_world_both_say_the_same(database: Database, simulated: Simulated) -> None:
    # given its commits, written into a real database
    for commit in simulated.commits:
        await database.force(f"UPDATE journal_head SET epoch = {commit.before.epoch}")
        journal = journal_of(database.dsn, commit.before.epoch, (RENTAL,), role=database.role)
        await journal.commit(commit)
        await journal.aclose()
    # then its rows are those of the simulated one
    connection = await asyncpg.connect(database.superuser_dsn)
    real = await rows_of(connection)
    await connection.close()
    made = simulated_rows(simulated)
    for table, rows in real.items():
        assert _bare(rows, made.get(table, [])) == _bare(made.get(table, []), rows), table
    # and of it, as it is and damaged, view and Python say the same
    verdicts = [(damage, *await seen_after(database, damage)) for damage in ("", *(damage for _, damage in BREAKS))]
    assert [damage for damage, view, python in verdicts if view != python] == []
    assert verdicts[0] == ("", Counter(), Counter())
    assert sum(bool(view) for _, view, _ in verdicts) >= len(BREAKS) / 2


PLACES = {"begun_jseq", "ended_epoch", "shard", "month", "at_us"}  # where and when a row was kept: one of both says it


def _bare(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[str]:
    """Rows in no order, with the columns that both have."""
    if not rows or not others:
        return [json.dumps(row, default=str) for row in rows]
    common = rows[0].keys() & others[0].keys()
    assert (rows[0].keys() | others[0].keys()) - common <= PLACES
    return sorted(json.dumps({name: _plain(row[name]) for name in sorted(common)}, sort_keys=True) for row in rows)


def _plain(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value.startswith(("{", "[")) else value


# What Python says and no view does, and why.
BEYOND_THE_VIEW = {
    "at_rest": "a world may owe something at any instant; only at rest it may not",
    "hashed": "SQL has no canonical JSON: `amends audit verify` computes the hashes",
    "in_order": "the bus is not in the database",
}


def test_what_python_checks_beyond_the_view_is_named() -> None:
    checks = {
        name for name, each in vars(rest).items() if inspect.isfunction(each) and each.__module__ == rest.__name__
    }
    assert {name for name in checks if not name.startswith("_")} == BEYOND_THE_VIEW.keys()


def test_no_source_of_the_view_is_without_its_planted_violation() -> None:
    definition = views().partition("VIEW recorded_violation AS")[2].partition("CREATE OR REPLACE VIEW")[0]
    sources = set()
    for source in definition.split("UNION ALL"):
        (name, what) = re.findall(r"SELECT '(\w\d)'|'what', '([^']+)'", source)
        sources.add(f"{name[0]}: {what[1]}")
    assert {f"{shown[:2]}: {shown.partition(': ')[2]}" for shown, _ in BREAKS} == sources


async def test_a_node_on_its_way_back_is_no_violation_at_any_instant(database: Database) -> None:
    book = database.book
    await whole_story(book)

    async def look() -> None:
        assert await database.read.rows("violations") == []

    book.after_turn = look
    # given a node that has been cleaned, whose agent does not answer at first
    await book.end("node:n2", "agent.reconcile", "failed", "agent_timeout", "no answer")
    await book.timer("node", "n2", "reconcile")
    await book.end("node:n2", "agent.reconcile", users=[], mounts=[], foreign=[])
    assert book.state("node", "n2").state == "ready"


async def test_the_reader_sees_the_views_and_nothing_else(database: Database) -> None:
    await whole_story(database.book)
    connection = await asyncpg.connect(database.dsn.replace("//amends@", "//amends_reader@"))
    try:
        for view in COLUMNS:
            await connection.fetch(f"SELECT * FROM public_v1.{view}")
        for statement in (
            "SELECT * FROM allocations",
            "SELECT * FROM step",
            "SELECT * FROM span_step",
            "DELETE FROM public_v1.debt",
            "UPDATE public_v1.meter SET state = 'stopped'",
            "CREATE TABLE mine (id int)",
        ):
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_schema_is_made_even_where_no_role_may_be_made(database: Database) -> None:
    superuser = await asyncpg.connect(database.superuser_dsn)
    await superuser.execute("ALTER ROLE amends_reader RENAME TO somebody_else; CREATE ROLE plain LOGIN")
    await superuser.execute("CREATE DATABASE plain OWNER plain")
    dsn = re.sub(r"//amends@/test\d+", "//plain@/plain", database.dsn)
    lease = Lease(dsn, "plain")
    try:
        assert await lease.acquire_now() == 1
        await lease.prepare("plain", "0", 1)
        read = ReadSide(dsn)
        assert await read.rows("violations") == []
        await read.aclose()
    finally:
        await lease.aclose()
        await superuser.execute("DROP DATABASE plain WITH (FORCE)")
        await superuser.execute("DROP ROLE plain; ALTER ROLE somebody_else RENAME TO amends_reader")
        await superuser.close()


async def test_no_key_stands_in_any_view_or_span(database: Database) -> None:
    await whole_story(database.book)
    for view in COLUMNS:
        rows = await database.all(f"SELECT * FROM public_v1.{view}")
        assert "BBBB" not in json.dumps(rows, default=str), view


@pytest.mark.parametrize(
    "slipped_in",
    [
        "INSERT INTO ledger_entries SELECT * FROM ledger_entries",
        "INSERT INTO audit_log SELECT * FROM audit_log LIMIT 0",
        "INSERT INTO compensation SELECT * FROM compensation LIMIT 0",
        "INSERT INTO failure SELECT * FROM failure LIMIT 0",
        "INSERT INTO recovery_run SELECT * FROM recovery_run LIMIT 0",
        "INSERT INTO recovery_action SELECT * FROM recovery_action LIMIT 0",
        "INSERT INTO meters SELECT * FROM meters LIMIT 0",
        "INSERT INTO nodes SELECT * FROM nodes LIMIT 0",
        "INSERT INTO step SELECT * FROM step LIMIT 0",
    ],
)
async def test_the_owner_of_the_database_slips_nothing_in_from_another_session(
    database: Database, slipped_in: str
) -> None:
    connection = await asyncpg.connect(database.dsn)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="through the API only"):
            await connection.execute(slipped_in)
    finally:
        await connection.close()
