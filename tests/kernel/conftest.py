"""Kernels for tests: the switch domain on the real embedded Postgres, without a broker."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.postgres.journal import journal_of
from adapters.postgres.lease import Lease
from amends.kernel import Kernel
from amends.ports.bus import Outgoing, Published
from amends.ports.clock import NO_PEERS, PeerClock
from amends.ports.notary import Notary
from amends.runtime.trunk import Supervisor, SupervisorSpec
from amends.values.limits import Limits
from examples.switch_port import SWITCH, Switch
from supervisors.timing import timing
from tests.adapters.postgres.database import named

Running = Callable[..., AbstractAsyncContextManager[Kernel]]


class NoBroker:
    """A broker that acknowledges at once and remembers."""

    def __init__(self) -> None:
        self.published: list[str] = []

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        self.published.append(subject)
        return Published("ok")

    async def publish_together(self, messages: Sequence[Outgoing]) -> Published:
        self.published += [each.subject for each in messages]
        return Published("ok")


@pytest.fixture
def dsn(server: EmbeddedPostgres, empty: str) -> str:
    """A database of its own, migrated."""
    return named(server.dsn, empty)


@pytest.fixture
def switch() -> Switch:
    return Switch()


@pytest.fixture
def loaded(dsn: str, switch: Switch) -> Running:
    """A kernel that has read the database and is wired; no service of it runs."""

    @asynccontextmanager
    async def start(
        notary: Notary | None = None, peer_clocks: Mapping[str, PeerClock] = NO_PEERS
    ) -> AsyncIterator[Kernel]:
        lease = Lease(dsn, "test")
        await lease.acquire()
        await lease.prepare("test", "0", time.time_ns() // 1000)
        kernel = Kernel((SWITCH,), Limits(timing("acceptance", {})))
        try:
            await kernel.open(journal_of(dsn, lease.epoch, kernel.domains, role=lease.role), lease, notary)
            await kernel.load()
            kernel.wire({"switch": switch, "bus": switch}, NoBroker(), peer_clocks=peer_clocks)
            yield kernel
        finally:
            await kernel.aclose()

    return start


@pytest.fixture
def running(loaded: Running) -> Running:
    """Start a kernel on the database; leaving it is like a crash between commits (nothing is drained)."""

    @asynccontextmanager
    async def start() -> AsyncIterator[Kernel]:
        async with loaded() as kernel:
            await kernel.resume()
            async with served(kernel):
                yield kernel

    return start


@asynccontextmanager
async def served(kernel: Kernel) -> AsyncIterator[None]:
    """The kernel's services run."""
    tree = Supervisor(SupervisorSpec(name="test", children=kernel.children()))
    task = asyncio.create_task(tree.run())
    await tree.started.wait()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
