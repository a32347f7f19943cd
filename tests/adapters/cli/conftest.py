"""A real NATS server with a made-up runtime on it, and the command line as a script calls it."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.cli.main import main
from adapters.embedded.nats import EmbeddedNats
from amends.domain.domain import requests_of
from supervisors.rental import RENTAL
from tests.directories import scratch

REQUESTS = requests_of((RENTAL,)).values()
TRACE = "0123456789abcdef" * 2


class FakeRuntime:
    """Answers each subject with what a test put there, and remembers what it was asked."""

    def __init__(self, url: str, client: Client) -> None:
        self.url, self._client = url, client
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []

    async def arrive(self) -> None:
        self._serving = await self._client.subscribe("amends.v1.>", cb=self.answer)
        await self._client.flush()

    async def leave(self) -> None:
        await self._serving.unsubscribe()
        await self._client.flush()

    async def answer(self, message: Msg) -> None:
        subject = message.subject.removeprefix("amends.v1.")
        data = json.loads(message.data)
        self.asked.append((subject, data, dict(message.headers or {})))
        found: Any = self.answers.get(subject, {"items": [], "cursor": None})
        found = found(data) if callable(found) else found
        if found is None:
            return
        if isinstance(found, bytes):
            await message.respond(found)
            return
        reply = {"ok": "code" not in found, "request_id": "req_1", "trace_id": TRACE, "duplicate": False}
        reply["error" if "code" in found else "data"] = found
        await message.respond(json.dumps(reply).encode())


class Said:
    """What a command line came to."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


Amends = Callable[..., Awaitable[Said]]


@pytest.fixture
async def base() -> AsyncIterator[Path]:
    base = scratch("amends-cli-")
    yield base
    shutil.rmtree(base)


@pytest.fixture
async def runtime(base: Path) -> AsyncIterator[FakeRuntime]:
    server = EmbeddedNats(base)
    await server.start()
    client = await nats.connect(server.url)
    runtime = FakeRuntime(server.url, client)
    await runtime.arrive()
    yield runtime
    await client.close()
    await server.stop()


@pytest.fixture
def amends(
    runtime: FakeRuntime, base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Amends:
    """Run a command line with the fake runtime's `endpoints.json` as the local one."""
    for name in ("AMENDS_NATS_SERVERS", "AMENDS_TOKEN", "AMENDS_STATE_DIR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    endpoints = {"nats_url": runtime.url, "operator_token": "the local token", "pid": 1}
    (base / "endpoints.json").write_text(json.dumps(endpoints))
    monkeypatch.setenv("AMENDS_STATE_DIR", str(base))

    async def run(*argv: str, local: Any = None) -> Said:
        status = await asyncio.to_thread(main, argv, local or {}, REQUESTS)
        captured = capsys.readouterr()
        return Said(status, captured.out, captured.err)

    return run
