"""The embedded servers, where none are configured: started first, watched, started again when they die."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.postgres import EmbeddedPostgres
from adapters.postgres.reader import dsn_for, let_in
from amends.runtime.trunk import ChildSpec
from supervisors.settings import Settings

WATCH_S = 0.25


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
        self.nats = None if settings.nats.servers else _nats(settings, state_dir)

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

    async def reader_dsn(self, password_file: Path) -> str:
        """The same database for the read-only role.

        Where the configured role may not make one, it is the configured one in read-only transactions.
        """
        if self.postgres is not None:
            return dsn_for(self.dsn)
        if not password_file.exists():
            password_file.touch(mode=0o600)
            password_file.write_text(secrets.token_urlsafe(24), encoding="ascii")
        found = await let_in(self.dsn, password_file.read_text(encoding="ascii").strip())
        return found or f"{self.dsn}{'&' if '?' in self.dsn else '?'}default_transaction_read_only=on"

    @property
    def nats_urls(self) -> list[str]:
        """Where NATS is."""
        return [self.nats.url] if self.nats is not None else self._settings.nats.servers

    @property
    def local_nats_url(self) -> str:
        """For clients on this machine; of an embedded server with users it holds the runtime's own way in."""
        found, url = self._settings.nats, self.nats_urls[0]
        if self.nats is None or not found.user:
            return url
        return url.replace("://", f"://{quote(found.user, safe='')}:{quote(found.password, safe='')}@")

    def children(self) -> list[ChildSpec]:
        """Watchers for the supervision tree."""
        embedded: list[tuple[str, Server | None]] = [("postgres", self.postgres), ("nats", self.nats)]
        return [
            ChildSpec(name=f"embedded-{name}", run=_watch(server), restart="permanent")
            for name, server in embedded
            if server is not None
        ]


def _nats(settings: Settings, state_dir: Path) -> EmbeddedNats | None:
    if settings.nats.servers:
        return None
    users = settings.nats.users_file
    return EmbeddedNats(state_dir, config_extra=Path(users).read_text(encoding="utf-8") if users else "")


def _watch(server: Server) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            if not server.alive():
                await server.start()

    return run
