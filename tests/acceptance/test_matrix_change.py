"""A release that no longer owes what open recovery runs began with refuses to start, and names them (matrix.md)."""

import asyncio
import json
import shutil
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from supervisors.matrix import MATRIX
from tests.acceptance.world import World
from tests.patience import PATIENCE_S

RUN = """
    INSERT INTO recovery_run (recovery_id, recovery_trace_id, matrix_row, matrix_version, matrix_sha256, policy_sha256,
        started_us, trigger_type, trigger_ref, original_trace_id, original_span_id, entity, name, epoch, jseq)
    VALUES ('recov_1', 'e', 'R04', '2020-01-01.1', $1, '', 1, 'failure', '', 'e', 'e', 'allocation:a', 'n', 1, 1)
"""


async def test_a_start_under_which_an_open_run_would_owe_less_is_refused(state_dir: Path) -> None:
    # given an open run that began under a matrix whose R04 owed one thing more
    async with World(state_dir).running() as world:
        await refused_beside(world, state_dir)


async def refused_beside(world: World, state_dir: Path) -> None:
    old = json.loads(MATRIX.body())
    (row,) = [each for each in old["rows"] if each["id"] == "R04"]
    row["compensations"].append("cancel·decision")
    await world.sql.execute("SET session_replication_role = replica")
    await world.sql.execute("INSERT INTO document VALUES ($1, 'matrix', $2, 1)", "0" * 64, old)
    await world.sql.execute(RUN, "0" * 64)
    # when a second runtime is started on the same servers it is refused, and the first one is not disturbed
    host = parse_qs(urlsplit(world.endpoints["postgres_dsn"]).query)["host"][0]
    second = World(state_dir.with_name("second"), f'[postgres]\ndsn = "postgresql://amends@/amends?host={host}"\n')
    second.state_dir.mkdir()
    shutil.copy(state_dir / "ssh_client_key", second.state_dir)
    process = await second._spawn()
    async with asyncio.timeout(PATIENCE_S):
        assert await process.wait() == 2
    said = second.log_text()
    assert f"matrix {MATRIX.version} changes what open recovery runs owe" in said
    assert "R04 (matrix 2020-01-01.1) has no compensations cancel·decision any more: recov_1 of allocation:a" in said
    assert "Traceback" not in said
    await world.account("acme")
    # and once the run has ended it waits for the first one, as a standby does
    await world.sql.execute("UPDATE recovery_run SET final_outcome = 'recovered', ended_us = 2, month = 202001")
    process = await second._spawn()
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        assert (await process.stdout.readline()).startswith(b"standby")
    process.kill()
    await process.wait()
