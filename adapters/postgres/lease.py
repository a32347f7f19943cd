"""The lease: which runtime may act, on a connection of its own, and the take-over of a dead or paused one.

The epoch comes from here. A holder renews every second from the moment it has the lease, however long its start
takes. It is replaced when whoever wants the lease has itself seen it unrenewed for `STALE_S`, by its own clock and
while Postgres answered: a lost session, a stopped clock or an outage of Postgres says nothing of the holder. It gives
the lease back when it stops. What a replaced one still tries to write fails at the head.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg
import msgspec

from adapters.postgres import schema
from adapters.postgres.connect import DRIVER_ERRORS, classify, close, connect
from adapters.postgres.role import runtime_role
from adapters.postgres.statements import statement
from amends.runtime.clock import WRONG_US, ahead_of
from amends.values.canonical import sha256
from amends.values.errors import BadConfiguration, Fenced, Refused, Unavailable

log = logging.getLogger("amends.lease")
STALE_S = 5.0
RENEW_S = 1.0
POLL_S = 0.5
RENEWAL_TIMEOUT_S = 3.0  # one that hangs is given up for a new connection
NEVER = float("inf")
ACT_S = 5.0  # older than this: no outside effect is begun


class Lease:
    """Held by one runtime. `age_s` is the time since the last renewal began that succeeded.

    `is_dead` says of a holder that its process is known to have ended: nobody waits for that one.
    """

    def __init__(
        self, dsn: str, holder: str, is_dead: Callable[[str], bool] = lambda holder: False, *,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:  # fmt: skip
        self._dsn, self._holder, self._is_dead, self._wall_us = dsn, holder, is_dead, wall_us
        self._connection: asyncpg.Connection[Any] | None = None
        self._renewed = self._confirmed = -NEVER
        self._renewing: asyncio.Task[None] | None = None
        self._sight: tuple[int, Any] | None = None  # the lease as it was last seen
        self._looked = self._unrenewed_s = 0.0  # when that was, and for how long it has been seen like that
        self._lost = False
        self._raised = ""  # why we have raised the epoch above our own
        self._away_since = NEVER
        self.epoch = 0
        self.role = ""  # what the runtime's sessions work as; "": as who they log in

    @property
    def age_s(self) -> float:
        """Seconds since the last successful renewal began."""
        return time.monotonic() - self._renewed

    def may_act(self) -> bool:
        """Whether an outside effect may begin now."""
        return not self._lost and self.age_s < ACT_S

    def may_answer(self) -> bool:
        """Whether a request may be answered: nobody else can have the lease, if only since Postgres lets none write."""
        return not self._lost and time.monotonic() - max(self._renewed, self._confirmed) < ACT_S

    def fence(self) -> None:
        """Another runtime has taken over: nothing begins any more."""
        self._lost = True

    async def acquire(self) -> int:
        """Wait until the lease is ours; returns the new epoch, with older sessions ended."""
        said = False
        while True:
            try:
                if await self._try():
                    return self.epoch
            except (Unavailable, *DRIVER_ERRORS) as error:
                if not said:
                    log.warning("the lease cannot be asked for, trying on: %s", error)
                said = True
                await close(self._connection)
                self._connection = None
            await asyncio.sleep(POLL_S)

    async def acquire_now(self) -> int | None:
        """One attempt; None while another runtime holds the lease. Raises `Unavailable`, `BadConfiguration`."""
        try:
            return self.epoch if await self._try() else None
        except DRIVER_ERRORS as error:
            raise blame(error) from error

    async def _try(self) -> bool:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn, name="amends-lease")
        connection = self._connection
        started = time.monotonic()
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(7233178)")
            await connection.execute(statement("create_lease"))
            await connection.execute(statement("seed_lease"))
            found = await connection.fetchrow(statement("see_lease"))
            asked_before = self._sight is not None
            free = self._is_free(found, started)
            if free or not asked_before:  # who waits is refused at its start as well, not only when it would take over
                await self._check(connection)
            if not free:
                return False
            epoch: int = await connection.fetchval(statement("take_lease"), self._holder)
        self.epoch, self._renewed = epoch, started
        await connection.execute(statement("end_sessions"), f"amends:{epoch}")
        self._renewing = asyncio.create_task(self._renew(), name="lease.renew")  # the connection is its own now
        return True

    async def _check(self, connection: "asyncpg.Connection[Any]") -> None:
        """Refuse what would refuse the start, before a holder loses the lease to it; raises `BadConfiguration`."""
        before_us = self._wall_us()
        peer_us: int = await connection.fetchval(statement("server_clock"))
        check_clock(before_us, peer_us, self._wall_us())
        await schema.check(connection)
        for row in await connection.fetch(statement("durable_settings")):
            if row["setting"] == "off":
                why = "acknowledged commits could be lost"
                raise BadConfiguration(f"Postgres runs with {row['name']} = off: {why}")

    def _is_free(self, found: Any, now: float) -> bool:
        """Whether it may be taken. Only time in which we looked counts: we may have been paused, or Postgres away."""
        if not found["holder"] or self._is_dead(found["holder"]):
            return True
        sight = (found["epoch"], found["renewed_at"])
        if sight == self._sight:
            self._unrenewed_s += min(now - self._looked, 2 * POLL_S)
        else:
            self._sight, self._unrenewed_s = sight, 0.0
        self._looked = now
        return self._unrenewed_s >= STALE_S

    async def prepare(
        self, instance_id: str, version: str, now_us: int, resource: Mapping[str, str] | None = None
    ) -> None:
        """Migrate, then take over the journal under our epoch; raises `Unavailable`, `BadConfiguration`.

        `resource` is what the environment says of this runtime: its spans bear it for ever.
        """
        # The lease's connection is busy renewing. This one is a session of the epoch, which a successor ends.
        connection = await connect(self._dsn, name=f"amends:{self.epoch}")
        try:
            await self._begin_epoch(connection)  # before the schema moves: an older runtime writes nothing meanwhile
            await schema.migrate(connection, version)
            await self._begin_epoch(connection)  # for a database that had no journal yet
            self.role = await runtime_role(connection)
            said = msgspec.json.encode(dict(resource or {})).decode()
            await connection.execute(statement("record_epoch"), self.epoch, instance_id, version, now_us, said)
        except DRIVER_ERRORS as error:
            raise blame(error) from error
        finally:
            await close(connection)

    async def _begin_epoch(self, connection: "asyncpg.Connection[Any]") -> None:
        """The journal is ours, and this session is one that the guards of the state tables let through."""
        await connection.execute(statement("set_epoch"), str(self.epoch))
        if await connection.fetchval(statement("has_journal")):
            await connection.execute(statement("begin_epoch"), self.epoch)

    async def raise_to(self, epoch: int, why: str, kind: str, body: bytes, at_us: int) -> None:
        """See `HeldLease.raise_to`. The lease's own connection is busy renewing."""
        connection = await connect(self._dsn, name=f"amends:{self.epoch}")
        try:
            arguments = (self.epoch, epoch, sha256(body), kind, body.decode(), at_us)
            if await connection.fetchval(statement("raise_lease_to"), *arguments) is not None:
                self._raised, self._lost = why, True
        except DRIVER_ERRORS as error:
            raise Unavailable(f"Postgres: {error}") from error
        finally:
            await close(connection)

    async def run(self) -> None:
        """Until cancelled; raises `Fenced` when another runtime has taken the lease. `aclose` ends the renewing."""
        assert self._renewing is not None
        await asyncio.shield(self._renewing)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect(self._dsn, name="amends-lease")
                held = await self._beat(self._connection)
            except (Unavailable, *DRIVER_ERRORS) as error:
                self._say(error)
                if self._connection is not None:
                    self._connection.terminate()
                continue
            if self._renewed > self._away_since:
                self._say(None)
            if not held:
                self._lost = True
                raise Fenced(self._raised or f"another runtime has taken the lease from epoch {self.epoch}")

    def _say(self, error: Exception | None) -> None:
        """One line when Postgres goes and one when it is back."""
        if error is not None and self._away_since == NEVER:
            self._away_since = time.monotonic()
            log.warning("Postgres does not answer: nothing is begun or committed until it is back (%s)", error)
        elif error is None and self._away_since != NEVER:
            away_s, self._away_since = time.monotonic() - self._away_since, NEVER
            log.warning("Postgres is back after %.1f s", away_s)

    async def _beat(self, connection: "asyncpg.Connection[Any]") -> bool:
        """Renew; whether the lease is still ours. Where Postgres takes no writes, reading it says so to its clients."""
        started = time.monotonic()
        try:
            held = await connection.fetchval(statement("renew_lease"), self.epoch, timeout=RENEWAL_TIMEOUT_S)
        except asyncpg.PostgresError as error:
            if connection.is_closed():
                raise
            held = await connection.fetchval(statement("read_lease"), timeout=RENEWAL_TIMEOUT_S)
            if held is None:  # a replica, or a server that was one's primary before: others may hold it elsewhere
                raise Unavailable(f"Postgres: {error}") from error
            self._confirmed = started
            self._say(error)
        else:
            self._renewed = started
        return bool(held == self.epoch)

    async def aclose(self) -> None:
        """Give the lease back, if it is ours, and the connection up."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed() and self.epoch:
            try:
                await connection.execute(statement("give_lease"), self.epoch, timeout=1.0)
            except DRIVER_ERRORS as error:
                log.info("the lease is not given back, its successor waits: %s", error)
        await close(connection)


def blame(error: Exception) -> Unavailable | BadConfiguration:
    """What a driver's error means to a start."""
    found = classify(error)
    if isinstance(found, Refused):
        return BadConfiguration(f"Postgres refuses what the start needs: {found.message}")
    return found if isinstance(found, Unavailable) else Unavailable(f"Postgres: {error}")


def check_clock(before_us: int, peer_us: int, after_us: int) -> None:
    """Raise `BadConfiguration` where Postgres' clock, asked between these two readings of ours, is another one."""
    ahead_us = ahead_of(peer_us, before_us, after_us)
    if abs(ahead_us) > WRONG_US:
        where = f"{abs(ahead_us) / 1e6:.1f} s {'ahead of' if ahead_us > 0 else 'behind'} Postgres'"
        raise BadConfiguration(f"this machine's clock is {where}; money is counted by it: set it right, then start")
