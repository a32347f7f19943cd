"""A wall clock that steps by an hour is announced and audited, and moves no time of ours by more than a crawl."""

import asyncio
import time

import msgspec
import pytest

from amends import kernel as module
from amends.turn.messages import Envelope, Pause
from examples.switch_port import Bind
from tests.kernel.conftest import Running, served
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


async def test_a_broker_with_another_clock_is_audited_once_each_way(
    loaded: Running, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOCK_S", 0.02)
    monkeypatch.setattr(module, "COMPARE_S", 0.02)
    ahead_s: list[float | None] = [5]
    asked = asyncio.Event()

    async def told() -> int | None:
        asked.set()
        return None if ahead_s[0] is None else int((time.time() + ahead_s[0]) * 1e6)

    query = "SELECT action, details ->> 'peer' AS peer FROM audit_log WHERE action LIKE 'clock.%' ORDER BY seq"
    stepped, in_step = ({"action": action, "peer": "nats"} for action in ("clock.stepped", "clock.in_step"))

    async def asked_again() -> None:
        for _ in range(3):
            asked.clear()
            await asked.wait()

    async with loaded(peer_clocks={"nats": told}) as kernel:
        await kernel.resume()
        async with served(kernel):
            # given a broker that is five seconds ahead, at the start and later
            await some(dsn, query)
            await asked_again()
            # then it is said once, and a broker that does not tell changes nothing
            ahead_s[0] = None
            await asked_again()
            assert await sql(dsn, query) == [stepped]
            ahead_s[0] = 0
            await some(dsn, f"SELECT FROM ({query}) said WHERE action = 'clock.in_step'")
            assert await sql(dsn, query) == [stepped, in_step]
            events = await sql(dsn, "SELECT subject FROM outbox WHERE entity = 'control_plane:runtime' ORDER BY jseq")
            assert [each["subject"].rpartition(".")[2] for each in events] == ["degraded", "recovered"]


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
