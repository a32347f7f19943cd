"""`python -m benchmarks.figures.growth`: a year of a thousand rentals a day, and what is as fast as on the first day.

Forty real rentals (ten of them end by an operator's force) of the runtime's program are copied until a year is full,
365 000 of them in twelve months. Before and after that the same runtime is started on it and asked the same questions.
`--scale` times a thousand a day.
"""

import asyncio
import datetime as dt
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg

from adapters.postgres.archiving import Archiving
from adapters.postgres.statements import statement
from benchmarks.figures.copies import copied
from benchmarks.figures.platform import Platform, platform
from benchmarks.figures.printing import Report, main, say

MACHINES, RENTALS, FORCED = 20, 40, 10
A_MONTH = 30_417
ASKED = 15  # times each question
QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "list_allocations": ("qry.allocation.list", {"account_id": "acme", "order": "newest"}),
    "list_failed_runs": ("qry.recovery_run.list", {"matrix_row": "R09", "order": "newest"}),
    "audit_of_a_node": ("qry.audit_log.list", {"target_ref": "node:{node}", "order": "newest"}),
    "list_steps": ("qry.step.list", {"entity": "allocation:{allocation}"}),
    "statement": ("qry.account.statement", {"account_id": "acme"}),
    "counts_by_row": ("ops.matrix.show", {}),
}
READS = ("spans_between", "spans_of", "violations")


async def look(it: Platform, report: Report, when: str) -> None:
    """Everything that is asked, at one size of the history."""
    asked = await some_rentals(it, 10)
    report(f"growth_rental_ms_{when}", asked, "ms")
    row = await it.sql.fetchrow("SELECT allocation_id, node_id, trace_id FROM public_v1.allocation "
                                "WHERE state = 'released' ORDER BY allocation_id DESC LIMIT 1")  # fmt: skip
    assert row is not None
    for name, (subject, body) in QUESTIONS.items():
        filled = {key: _filled(value, row) for key, value in body.items()}
        report(f"growth_{name}_ms_{when}", [await timed(it.ask(subject, **filled)) for _ in range(ASKED)], "ms")
    one = await asyncpg.connect(
        it.server.superuser_dsn, server_settings={"plan_cache_mode": "force_generic_plan", "jit": "off"}
    )
    try:
        await one.execute("SET enable_seqscan = off")
        head = await one.fetchval("SELECT seq FROM journal_head")
        arguments = {"spans_between": (head - 400, head, 2048), "spans_of": ([row["trace_id"]],), "violations": ()}
        for name in READS:
            await one.execute(f"SET enable_seqscan = {'on' if name == 'violations' else 'off'}")
            found = [await timed(one.fetch(statement(name), *arguments[name], timeout=3600))
                     for _ in range(1 if name == "violations" else ASKED)]  # fmt: skip
            report(f"growth_{name}_ms_{when}", found, "ms")
    finally:
        await one.close()
    report(
        f"growth_database_mb_{when}",
        [await it.sql.fetchval("SELECT pg_database_size(current_database())::float8 / 1e6")],
        "MB",
    )


async def some_rentals(it: Platform, count: int) -> list[float]:
    """One after the other, from the command to an active rental and away; milliseconds of the first."""
    found = []
    for _ in range(count):
        name, asked_us = await it.rent()
        await it.until(f"SELECT count(*) FROM allocations WHERE allocation_id = '{name}' AND state = 'active'", 1)  # noqa: S608
        active = await it.sql.fetchval(
            "SELECT (body #>> '{rental,activated_us}')::bigint FROM allocations WHERE allocation_id = $1", name
        )
        found.append((active - asked_us) / 1000)
        await it.ask("cmd.allocation.release", allocation_id=name)
        await it.until("SELECT count(*) FROM allocations WHERE live", 0)
    return found


async def timed(asked: Any) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    await asked
    return (time.perf_counter() - began) * 1000


def _filled(value: Any, row: "asyncpg.Record") -> Any:
    return value.format(node=row["node_id"], allocation=row["allocation_id"]) if isinstance(value, str) else value


def months() -> list[int]:
    """The twelve before this one."""
    today = dt.datetime.now(dt.UTC)
    present = today.year * 12 + today.month - 1
    return [each // 12 * 100 + each % 12 + 1 for each in range(present - 12, present)]


async def history(it: Platform) -> None:
    """The real rentals that are copied."""
    for begun in range(0, RENTALS, MACHINES):
        names = [name for name, _ in await asyncio.gather(*(it.rent() for _ in range(MACHINES)))]
        await it.until("SELECT count(*) FROM allocations WHERE state = 'active'", MACHINES)
        forced = names[:FORCED] if not begun else []
        await it.all_of(
            it.ask("ops.allocation.force_release", allocation_id=name, reason_code="operator_request", reason="bench")
            if name in forced else it.ask("cmd.allocation.release", allocation_id=name) for name in names
        )  # fmt: skip
        await it.until("SELECT count(*) FROM allocations WHERE live", 0)
    await it.until("SELECT count(*) FROM outbox_open", 0)


async def measure(report: Report, scale: float) -> None:
    """See above."""
    async with platform(MACHINES) as it:
        await history(it)
        await look(it, report, "day")
        await it.end()
        of = months()
        copies = max(2, int(A_MONTH * scale / RENTALS))
        say(f"copying {copies} times in each of {len(of)} months")
        began = time.perf_counter()
        await copied(it.server, of, copies)
        count = await it.sql.fetchval("SELECT count(*) FROM allocations")
        say(f"{count} rentals are there after {time.perf_counter() - began:.0f} s")
        report("growth_rentals", [count], "rentals")
        began = time.perf_counter()
        await it.begin()
        await it.ready()
        report("growth_start_s", [time.perf_counter() - began], "s")
        await it.until("SELECT count(*) FROM nodes WHERE state = 'ready'", MACHINES)
        await look(it, report, "year_unmarked")
        await it.sql.execute(
            "SET session_replication_role = replica; UPDATE verified_mark SET (jseq, audit_seq, audit_hash) = "
            "(SELECT jseq, seq, hash FROM audit_log WHERE month < amends_month() ORDER BY seq DESC LIMIT 1)"
        )
        await look(it, report, "year")
        await taken_out(it, report, of)
        await look(it, report, "archived")


async def taken_out(it: Platform, report: Report, of: Sequence[int]) -> None:
    """The oldest eleven months are archived; the copies' chain is none, so nothing is verified before."""
    async with Archiving(it.server.dsn, say) as archiving:
        began = time.perf_counter()
        plan = await archiving.plan(of[-1], exported=False)
        manifest = await archiving.export(plan, Path(it.base) / "archive")
        report("growth_export_s", [time.perf_counter() - began], "s")
        report("growth_exported_rows", [sum(table.rows for table in manifest.tables.values())], "rows")
        size = sum(file.stat().st_size for file in (Path(it.base) / "archive").iterdir())
        report("growth_archive_mb", [size / 1e6], "MB")
        began = time.perf_counter()
        await archiving.take_out(plan, "of copies", drop=True)
        report("growth_take_out_s", [time.perf_counter() - began], "s")


if __name__ == "__main__":
    main(measure)
