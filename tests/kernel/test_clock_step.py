"""A wall clock that steps by an hour is announced and audited, and moves no time of ours by more than a crawl."""

import asyncio
import time

import msgspec
import pytest

from amends import kernel as module
from amends.turn.messages import Envelope, Pause
from tests.kernel.conftest import Running
from tests.kernel.switch import Bind
from tests.kernel.test_entities import execute
from tests.kernel.test_switch_port import port_is, some, sql


async def test_a_stepped_clock_is_audited_once_and_announced(
    running: Running, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOCK_S", 0.02)
    async with running() as kernel:
        before = kernel.clock.now_us()

        def ahead() -> int:
            return time.time_ns() // 1000 + 3_600_000_000

        monkeypatch.setattr(kernel.clock, "_wall", ahead)
        monkeypatch.setattr(kernel, "sources", msgspec.structs.replace(kernel.sources, wall_us=ahead))
        query = "SELECT action, target_ref FROM audit_log WHERE action LIKE 'clock.%'"
        await some(dsn, query)
        await asyncio.sleep(0.1)
        assert await sql(dsn, query) == [{"action": "clock.stepped", "target_ref": "control_plane:runtime"}]
        events = await sql(dsn, "SELECT subject FROM outbox WHERE entity = 'control_plane:runtime'")
        assert events == [{"subject": "amends.v1.evt.control_plane.runtime.degraded"}]
        assert kernel.clock.now_us() - before < 60_000_000


async def test_an_overdue_timer_without_a_case_is_a_violation(running: Running, dsn: str) -> None:
    query = "SELECT name, target_ref FROM public_v1.invariant_violation WHERE name = 'A3'"
    async with running() as kernel:
        kernel.engine.tell("port", "p1", Envelope(Bind("m1"), priority=True))
        await port_is(kernel, "p1", "bound")
        # given a runtime that has been there for ten minutes, and a timer that was due six minutes ago
        await execute(
            dsn,
            """SET amends.epoch = 1;
               UPDATE runtime_epoch SET started_us = started_us - 600000000;
               UPDATE actors SET due_us = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 360000000
               WHERE id = 'p1'""",
        )
        assert await sql(dsn, query) == [{"name": "A3", "target_ref": "port:p1"}]
        # then not while a case says why
        kernel.engine.tell("port", "p1", Envelope(Pause("actor_quarantined", {}), priority=True))
        await some(dsn, "SELECT FROM ops_case")
        await execute(
            dsn,
            """SET amends.epoch = 1;
               UPDATE actors SET due_us = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 360000000
               WHERE id = 'p1'""",
        )
        assert await sql(dsn, query) == []
