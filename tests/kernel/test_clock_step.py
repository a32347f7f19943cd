"""A wall clock that steps by an hour is announced and audited, and moves no time of ours by more than a crawl."""

import asyncio
import time

import pytest

from supervisors.boot import kernel as module
from tests.kernel.conftest import Running
from tests.kernel.test_switch_port import sql


async def test_a_stepped_clock_is_audited_once_and_announced(
    running: Running, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOCK_S", 0.02)
    async with running() as kernel:
        before = kernel.clock.now_us()
        monkeypatch.setattr(kernel.clock, "_wall", lambda: time.time_ns() // 1000 + 3_600_000_000)
        deadline = time.monotonic() + 10
        query = "SELECT action, target_ref FROM audit_log WHERE action LIKE 'clock.%'"
        while not await sql(dsn, query):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        assert await sql(dsn, query) == [{"action": "clock.stepped", "target_ref": "control_plane:runtime"}]
        events = await sql(dsn, "SELECT subject FROM outbox WHERE entity = 'control_plane:runtime'")
        assert events == [{"subject": "amends.v1.evt.control_plane.runtime.degraded"}]
        assert kernel.clock.now_us() - before < 60_000_000
