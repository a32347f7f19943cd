"""The embedded servers, where none are configured: started first, watched, started again when they die.

One that cannot come back is tried for ever and costs nothing but itself: what it served waits, as for any server that
is away.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from adapters.embedded.nats import EmbeddedNats, users_fault
from adapters.embedded.postgres import EmbeddedPostgres
from adapters.embedded.process import ServerFailed
from adapters.postgres.connect import place_of
from adapters.postgres.reader import dsn_for, let_in, read_only_dsn
from amends.runtime.trunk import ChildSpec
from amends.values.backoff import Backoff
from amends.values.errors import BadConfiguration, Unavailable
from supervisors.boot.files import kept_secret
from supervisors.closing import CLOSE_S, Parts
from supervisors.settings import Settings

log = logging.getLogger("amends.boot")
WATCH_S = 0.25
AGAIN = Backoff(500, 30_000)  # between tries to start a server that does not come back


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
        self._settings, self._state_dir = settings, state_dir
        drain_ms = settings.limits()["drain_timeout_ms"]
        assert isinstance(drain_ms, int)
        drain_s = drain_ms / 1000 + CLOSE_S
        self.postgres = None if settings.postgres.dsn else EmbeddedPostgres(state_dir, drain_s=drain_s)
        self.nats = None if settings.nats.servers else _nats(settings, state_dir, drain_s)

    async def start(self, parts: Parts) -> None:
        """Start what is embedded; each is a part to be closed. Raises `ServerFailed`, `BadConfiguration`."""
        for name, server in (("embedded Postgres", self.postgres), ("embedded NATS", self.nats)):
            if server is not None:
                parts.opened(name, server.stop)
                try:
                    await server.start()
                except ServerFailed:
                    if server is self.nats:
                        await check_users(self._settings)  # else the reason stands in its log
                    raise

    @property
    def said(self) -> str:
        """Which Postgres and which NATS these are, without a password."""
        dsn = self._settings.postgres.dsn
        postgres = f"Postgres {place_of(dsn)}" if dsn else f"embedded Postgres below {self._state_dir}"
        servers = ", ".join(url.rpartition("@")[2].rpartition("://")[2] for url in self._settings.nats.servers)
        return f"{postgres}, {f'NATS {servers}' if servers else 'embedded NATS'}"

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
        password = kept_secret(password_file, lambda: secrets.token_urlsafe(24))
        return await let_in(self.dsn, password) or read_only_dsn(self.dsn)

    @property
    def nats_urls(self) -> list[str]:
        """Where NATS is."""
        return [self.nats.url] if self.nats is not None else self._settings.nats.servers

    @property
    def local_nats_url(self) -> str:
        """For the command line on this machine: with the operators' way in, where the configuration names one.

        Where it names none it is, of an embedded server with users, the runtime's own, which can do no more than the
        runtime may; of others it is the bare address.
        """
        found, url = self._settings.nats, self.nats_urls[0]
        user, password = found.operator_user, found.operator_password
        if not user and self.nats is not None:
            user, password = found.user, found.password
        if not user or "@" in url:
            return url
        return url.replace("://", f"://{quote(user, safe='')}:{quote(password, safe='')}@")

    def children(self) -> list[ChildSpec]:
        """Watchers for the supervision tree."""
        children = []
        if (postgres := self.postgres) is not None:
            watch = watched("Postgres", postgres, lambda: postgres.dsn)
            children.append(ChildSpec(name="embedded-postgres", run=watch, fatal=True))
        if (nats := self.nats) is not None:
            watch = watched("NATS", nats, lambda: nats.url)
            children.append(ChildSpec(name="embedded-nats", run=watch, fatal=True))
        return children


async def check_users(settings: Settings) -> None:
    """Raise `BadConfiguration` for a file of users that the embedded NATS cannot read."""
    file = settings.nats.users_file
    if file and (why := await users_fault(Path(file))):
        raise BadConfiguration(f"[nats].users_file cannot be meant: {why}")


def _nats(settings: Settings, state_dir: Path, drain_s: float) -> EmbeddedNats:
    users = settings.nats.users_file
    extra = Path(users).read_text(encoding="utf-8") if users else ""
    return EmbeddedNats(state_dir, config_extra=extra, drain_s=drain_s)


def watched(name: str, server: Server, address: Callable[[], str]) -> Callable[[], Coroutine[Any, Any, None]]:
    """A service that starts the server again whenever it has died; it fails only where the server came back elsewhere.

    Then everybody who knows its address, this process too, has to be told another: that is a new start's work.
    """

    async def run() -> None:
        known, failures = address(), 0
        while True:
            await asyncio.sleep(AGAIN.delay_us(failures, name) / 1e6 if failures else WATCH_S)
            if server.alive():
                continue
            try:
                await server.start()
            except (Unavailable, OSError) as error:
                failures += 1
                log.warning("the embedded %s does not come back, attempt %d: %s", name, failures, error)
                continue
            failures = 0
            if address() != known:
                raise Unavailable(f"the embedded {name} had to come back at {address()} instead of {known}")

    return run
