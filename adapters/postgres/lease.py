"""The lease: which runtime may act, on a connection of its own, and the take-over of a dead or paused one.

The epoch comes from here. A holder renews every second from the moment it has the lease, however long its start
takes; one whose session is gone is replaced at once, one that has not renewed for `STALE_S` is replaced too, after its
sessions were ended. What it still tries to write fails at the head.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import asyncpg
import msgspec

from adapters.postgres.connect import classify, close, connect
from adapters.postgres.statements import migrations, statement
from amends.values.canonical import sha256
from amends.values.errors import BadConfiguration, Fenced, Refused, Unavailable

log = logging.getLogger("amends.lease")
STALE_S = 8.0
RENEW_S = 1.0
MIGRATION_S = 6 * 3600.0
RENEWAL_TIMEOUT_S = 3.0  # one that hangs is given up for a new connection
ACT_S = 5.0  # older than this: no outside effect is begun
_DRIVERS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class Lease:
    """Held by one runtime. `age_s` is the time since the last renewal began that succeeded."""

    def __init__(self, dsn: str, holder: str) -> None:
        self._dsn, self._holder = dsn, holder
        self._connection: asyncpg.Connection[Any] | None = None
        self._renewed = float("-inf")
        self._renewing: asyncio.Task[None] | None = None
        self.epoch = 0

    @property
    def age_s(self) -> float:
        """Seconds since the last successful renewal began."""
        return time.monotonic() - self._renewed

    def may_act(self) -> bool:
        """Whether an outside effect may begin now."""
        return self.age_s < ACT_S

    async def acquire(self, *, poll_s: float = 0.5) -> int:
        """Wait until the lease is ours; returns the new epoch, with older sessions ended."""
        said = False
        while True:
            try:
                if await self._try():
                    return self.epoch
            except (Unavailable, *_DRIVERS) as error:
                if not said:
                    log.warning("the lease cannot be asked for, trying on: %s", error)
                said = True
                await close(self._connection)
                self._connection = None
            await asyncio.sleep(poll_s)

    async def acquire_now(self) -> int | None:
        """One attempt; None while another runtime holds the lease. Raises `Unavailable`, `BadConfiguration`."""
        try:
            return self.epoch if await self._try() else None
        except _DRIVERS as error:
            raise _blame(error) from error

    async def _try(self) -> bool:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn, name="amends-lease")
        connection = self._connection
        started = time.monotonic()
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(7233178)")
            await connection.execute(statement("create_lease"))
            await connection.execute(statement("seed_lease"))
            epoch = await connection.fetchval(statement("take_lease"), self._holder, STALE_S)
        if epoch is None:
            return False
        self.epoch, self._renewed = epoch, started
        await connection.execute(statement("end_sessions"), f"amends:{epoch}")
        self._renewing = asyncio.create_task(self._renew(), name="lease.renew")  # the connection is its own now
        return True

    async def prepare(
        self, instance_id: str, version: str, now_us: int, resource: Mapping[str, str] | None = None
    ) -> None:
        """Migrate, then take over the journal under our epoch; raises `Unavailable`, `BadConfiguration`.

        `resource` is what the environment says of this runtime: its spans bear it for ever.
        """
        # The lease's connection is busy renewing. This one is a session of the epoch, which a successor ends.
        connection = await connect(self._dsn, name=f"amends:{self.epoch}")
        try:
            await _migrate(connection)
            await connection.execute(statement("begin_epoch"), self.epoch)
            said = msgspec.json.encode(dict(resource or {})).decode()
            await connection.execute(statement("record_epoch"), self.epoch, instance_id, version, now_us, said)
            for row in await connection.fetch(statement("durable_settings")):
                if row["setting"] == "off":
                    why = "acknowledged commits could be lost"
                    raise BadConfiguration(f"Postgres runs with {row['name']} = off: {why}")
        except _DRIVERS as error:
            raise _blame(error) from error
        finally:
            await close(connection)

    async def run(self) -> None:
        """Until cancelled; raises `Fenced` when another runtime has taken the lease. `aclose` ends the renewing."""
        assert self._renewing is not None
        await asyncio.shield(self._renewing)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            started = time.monotonic()
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect(self._dsn, name="amends-lease")
                held = await self._connection.fetchval(statement("renew_lease"), self.epoch, timeout=RENEWAL_TIMEOUT_S)
            except (Unavailable, *_DRIVERS):
                if self._connection is not None:
                    self._connection.terminate()
                continue
            if held is None:
                raise Fenced(f"another runtime has taken the lease from epoch {self.epoch}")
            self._renewed = started

    async def aclose(self) -> None:
        """Give the connection up; the session's end frees the lease."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await close(self._connection)


def _blame(error: Exception) -> Unavailable | BadConfiguration:
    """What a driver's error means to a start."""
    blame = classify(error)
    if isinstance(blame, Refused):
        return BadConfiguration(f"Postgres refuses what the start needs: {blame.message}")
    return blame if isinstance(blame, Unavailable) else Unavailable(f"Postgres: {error}")


async def _migrate(connection: "asyncpg.Connection[Any]") -> None:
    await connection.execute(statement("create_migrations"))
    done = {row["number"]: row["sha256"] for row in await connection.fetch(statement("done_migrations"))}
    newer = sorted(set(done) - {number for number, _, _ in migrations()})
    if newer:
        raise BadConfiguration(f"the database has the migration {newer[-1]} of a newer release; use that release")
    for number, name, text in migrations():
        digest = sha256(text.encode())
        if number in done:
            if done[number] != digest:
                raise BadConfiguration(f"the database was made by another {name}; use the release that made it")
            continue
        async with connection.transaction():
            await connection.execute(statement("unbounded"))
            await connection.execute(text, timeout=MIGRATION_S)  # a large table takes what it takes
            await connection.execute(statement("record_migration"), number, name, digest)
