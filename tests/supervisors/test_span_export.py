"""The process that sends spans, when it is of no use: the runtime goes on, says so, and tries again."""

import asyncio
import contextlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.otel.environment import Target
from amends.values.backoff import Backoff
from supervisors.boot import spans
from supervisors.boot.spans import SpanExport
from tests.patience import PATIENCE_S


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/no/such/program", "FileNotFoundError"),
        ("/bin/echo", "DecodeError"),  # it prints what is no progress
        ("/bin/false", "has ended (1)"),
    ],
)
async def test_one_that_cannot_be_started_or_speaks_nonsense_is_tried_again(
    program: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fetch(name: str, *args: Any) -> list[Any]:
        return []

    monkeypatch.setattr(spans, "BACKOFF", Backoff(1, 5))
    monkeypatch.setattr(sys, "executable", program)
    journal: Any = SimpleNamespace(fetch=fetch)
    export = SpanExport(journal, "postgresql://nowhere", "", Target("http://127.0.0.1:1/v1/traces"))
    task = asyncio.create_task(export.run())
    async with asyncio.timeout(PATIENCE_S):
        while export.failures < 3:
            await asyncio.sleep(0.01)
    assert not task.done()
    assert (export.up, export.exported, export.cursor) == (False, 0, 0)
    assert said in caplog.text
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
