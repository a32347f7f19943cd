"""A real NATS server for a module's tests, and a plain client on it."""

import shutil
from collections.abc import AsyncIterator

import nats
import pytest
from nats.aio.client import Client

from adapters.embedded.nats import EmbeddedNats
from tests.directories import scratch


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedNats]:
    """An embedded server in a short directory of its own."""
    base = scratch("amends-nats-")
    server = EmbeddedNats(base)
    await server.start()
    yield server
    await server.stop()
    shutil.rmtree(base)


@pytest.fixture
async def client(server: EmbeddedNats) -> AsyncIterator[Client]:
    """The runtime's side of the wire."""
    client = await nats.connect(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    yield client
    await client.close()
