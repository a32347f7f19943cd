"""The simulated Stripe as a program: it says where it is, goes on where it ended, and ends when told."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import stripe

from adapters.simulated import stripe_server
from adapters.simulated.stripe_book import API_KEY
from tests.patience import PATIENCE_S

PROGRAM = (sys.executable, "-m", stripe_server.__name__)


@contextlib.asynccontextmanager
async def started(*options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """The program while it listens; it is gone afterwards, whatever happens."""
    process = await asyncio.create_subprocess_exec(*PROGRAM, *options, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            line = await process.stdout.readline()
        yield process, json.loads(line)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def create(url: str) -> str:
    http = stripe.AIOHTTPClient()
    client = stripe.StripeClient(API_KEY, base_addresses={"api": url}, http_client=http, max_network_retries=0)
    made = await client.v1.customers.create_async({}, {"idempotency_key": "k"})
    await http.close_async()  # type: ignore[no-untyped-call]
    return made.id


async def test_it_says_where_it_is_ends_with_sigterm_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    file, made = tmp_path / "stripe.json", list[str]()
    for _ in range(2):
        async with started("--state", str(file)) as (process, said):
            assert said["pid"] == process.pid
            made.append(await create(said["url"]))
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_S):
                assert await process.wait() == 0
    assert made[0] == made[1]
    assert list(json.loads(file.read_bytes())["objects"]["customer"]) == [made[0]]


async def test_a_port_that_is_taken_is_refused() -> None:
    async with started() as (_, said):
        port = said["url"].rpartition(":")[2]
        second = await asyncio.create_subprocess_exec(*PROGRAM, "--port", port, stderr=asyncio.subprocess.PIPE)
        async with asyncio.timeout(PATIENCE_S):
            _, words = await second.communicate()
        assert (second.returncode, b"stripe_server: " in words) == (2, True)
