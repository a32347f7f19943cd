"""A database of the first release, with records in it, brought up to date: its old spans keep the new rules too."""

import hashlib

import asyncpg
import pytest

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.otel.verify import verify
from adapters.postgres.digests import verify_digests
from adapters.postgres.lease import Lease
from adapters.postgres.reading import ReadSide
from adapters.postgres.spans import SpanReader
from adapters.postgres.statements import migrations, statement
from amends.domain.domain import covered
from amends.values import ids
from supervisors.rental import RENTAL

RUN, ACTION, STEP = "recov_1", "act_1", "step_1"
TRACE = ids.trace_id("recovery", RUN)
# An undo of 12 345 µs, recorded 200 µs after it: 12 whole milliseconds before its record it had been under way already.
RECORDS = f"""
INSERT INTO runtime_epoch VALUES (1, 'instance-0', '0.1.0', 1);
INSERT INTO step VALUES
    ('{STEP}', 'allocation:a', 'ssh.user-remove', 1, 'done', 'k', 'node:n1', '{{}}', '{{}}', '{TRACE}',
     '{ids.span_id("action", ACTION)}', 2000000, 2012345, NULL, '', '', 1, 2);
INSERT INTO recovery_run VALUES
    ('{RUN}', '{TRACE}', 'R02', '1', 'm', 'p', 1900000, 'failure', 'failure:f', '{"ab" * 16}', '', 'allocation:a',
     'remote user setup', 1, NULL, NULL, '{{}}', 1);
INSERT INTO recovery_action VALUES
    ('{ACTION}', '{TRACE}', 1, 2012545, 'compensation', 'reverse user-create', 'node:n1/user:u', 'success', 12, '{{}}',
     '', 1, 2),
    ('act_2', '{TRACE}', 2, 2012545, 'fallback', 'something', 'node:n1', 'success', NULL, '{{}}', '', 1, 2);
INSERT INTO compensation VALUES
    ('comp_1', '{ACTION}', '{TRACE}', 1, 2012545, '{"ab" * 16}:{"cd" * 8}', 'side_effect', 'reverse', 'node:n1/user:u',
     'success', 12, '{{}}', 'R02', 'key', 2)
"""


@pytest.fixture
async def old_dsn(server: EmbeddedPostgres) -> str:
    """A database as 0.1.0 left it."""
    superuser = await asyncpg.connect(server.superuser_dsn)
    await superuser.execute("DROP DATABASE IF EXISTS old WITH (FORCE)")
    await superuser.execute("CREATE DATABASE old OWNER amends")
    await superuser.close()
    dsn = server.dsn.replace("/amends?", "/old?")
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement("create_migrations"))
    for number, name, text in migrations():
        if number <= 5:
            await connection.execute(text)
            digest = hashlib.sha256(text.encode()).hexdigest()
            await connection.execute(statement("record_migration"), number, name, digest, "contract")
    await connection.execute(RECORDS)
    await connection.execute("UPDATE journal_head SET seq = 2")
    await connection.close()
    return dsn


async def test_records_of_the_first_release_keep_the_new_rules(old_dsn: str) -> None:
    lease, read = Lease(old_dsn, "test"), ReadSide(old_dsn)
    try:
        assert await lease.acquire_now() == 1
        await lease.prepare("instance-1", "0.2.0", 3_000_000, {"service.name": "rental", "team": "a"})
        rows = await SpanReader(read).of([TRACE])
        by_name = {row["name"]: row for row in rows}
        undo, work = by_name["reverse user-create"], by_name["ssh.user-remove"]
        assert (undo["start_us"], undo["end_us"]) == (2_000_000, 2_012_545)
        assert work["parent_span_id"] == undo["span_id"]
        other = by_name["fallback something"]
        assert (other["start_us"], other["end_us"]) == (2_012_545, 2_012_545)
        assert [line for line in verify((), rows) if "begins" in line or "ends" in line] == []
        # and what the old runtime was stays what it was
        assert undo["resource"] == {
            "service.name": "amends", "service.version": "0.1.0", "service.instance.id": "instance-0", "amends.epoch": 1
        }  # fmt: skip
        assert await read.rows("violations") is not None
    finally:
        await read.aclose()
        await lease.aclose()


async def test_a_resource_is_that_of_the_runtime_that_made_the_record(old_dsn: str) -> None:
    connection = await asyncpg.connect(old_dsn)
    await connection.execute("DELETE FROM runtime_epoch")
    await connection.close()
    lease, read = Lease(old_dsn, "test"), ReadSide(old_dsn)
    try:
        assert await lease.acquire_now() == 1
        said = {"service.name": "rental", "team": "a", "service.version": "9", "amends.epoch": "9"}
        await lease.prepare("instance-1", "0.2.0", 3_000_000, said)
        reader = SpanReader(read)
        assert {row["resource"]["service.name"] for row in await reader.of([TRACE])} == {"rental"}
        resource = (await reader.of([TRACE]))[0]["resource"]
        assert (resource["team"], resource["service.version"], resource["amends.epoch"]) == ("a", "0.2.0", 1)
        assert await reader.services() == ["rental"]
        assert await reader.recent(tags={"team": "a"}, service="rental")
        assert await reader.recent(service="amends") == []
    finally:
        await read.aclose()
        await lease.aclose()


async def test_rows_from_before_the_digest_chain_are_counted(server: EmbeddedPostgres, old_dsn: str) -> None:
    lease = Lease(old_dsn, "test")
    superuser = await asyncpg.connect(server.superuser_dsn.replace("/amends?", "/old?"))
    try:
        assert await lease.acquire_now() == 1
        await lease.prepare("instance-1", "0.3.0", 3_000_000)
        verdict = await verify_digests(old_dsn, covered((RENTAL,)))
        assert (verdict.valid, verdict.since_seq, verdict.older) == (True, 2, 5)
        # one more, however old it says it is, and one less
        await superuser.execute(
            "SET session_replication_role = replica; DELETE FROM compensation; INSERT INTO step SELECT 'step_9', "
            "entity, name, attempt, state, 'k9', target, args, undo, trace_id, parent_span_id, started_us, ended_us, "
            "next_attempt_us, code, message, epoch, 1, server_address, server_port, month FROM step"
        )
        findings = (await verify_digests(old_dsn, covered((RENTAL,)))).findings
        assert sorted((each.table, each.what) for each in findings) == [
            ("compensation", "missing: 0 rows from before the chain began, there were 1"),
            ("step", "slipped in: 2 rows from before the chain began, there were 1"),
        ]
    finally:
        await superuser.close()
        await lease.aclose()
