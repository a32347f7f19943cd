"""The embedded servers, where none are configured: started first, watched, started again when they die."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.postgres import EmbeddedPostgres
from amends.runtime.trunk import ChildSpec
from supervisors.settings import Settings

WATCH_S = 0.25
READER = "amends_reader"  # made by the schema; sees the views and nothing else


class Server(Protocol):
    """An embedded server."""

    async def start(self) -> None:
        """Start it, or find it running."""
        ...

    async def stop(self) -> None:
        """Stop it."""
        ...

    def alive(self) -> bool:
        """Whether its process runs."""
        ...


class Servers:
    """Postgres and NATS as this process runs them, or as they are configured."""

    def __init__(self, settings: Settings, state_dir: Path) -> None:
        self._settings = settings
        self.postgres = None if settings.postgres.dsn else EmbeddedPostgres(state_dir)
        self.nats = None if settings.nats.servers else EmbeddedNats(state_dir)

    async def start(self) -> None:
        """Start what is embedded."""
        for server in (self.postgres, self.nats):
            if server is not None:
                await server.start()

    async def stop(self) -> None:
        """Stop what is embedded, NATS first."""
        for server in (self.nats, self.postgres):
            if server is not None:
                await server.stop()

    @property
    def dsn(self) -> str:
        """Where Postgres is."""
        return self.postgres.dsn if self.postgres is not None else self._settings.postgres.dsn

    @property
    def reader_dsn(self) -> str:
        """The same database for the read-only role."""
        parts = urlsplit(self.dsn)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{READER}@{host}"))

    @property
    def nats_urls(self) -> list[str]:
        """Where NATS is."""
        return [self.nats.url] if self.nats is not None else self._settings.nats.servers

    def children(self) -> list[ChildSpec]:
        """Watchers for the supervision tree."""
        embedded: list[tuple[str, Server | None]] = [("postgres", self.postgres), ("nats", self.nats)]
        return [
            ChildSpec(name=f"embedded-{name}", run=_watch(server), restart="permanent")
            for name, server in embedded
            if server is not None
        ]


def _watch(server: Server) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            if not server.alive():
                await server.start()

    return run
