"""The embedded Postgres' database on disk: made once, open to us alone, freed of a dead server's marks."""

import asyncio
import os
import pwd
import shutil
from pathlib import Path

import asyncpg

from adapters.embedded.account import Account
from adapters.embedded.ownership import PROC, processes_in
from adapters.embedded.process import ServerFailed, ServerProcess, death_signal_prefix

PROGRAM = "postgres"
INITDB_WITHIN_S = 120.0
DO = "If the log does not say what to do, name a Postgres of your own: [postgres] dsn"


async def create(home: Path, data: Path, programs: Path, account: Account | None) -> None:
    """Run initdb beside `data` and move the result there: a crash leaves either nothing or all of it."""
    fresh = home / "data.new"
    if fresh.exists():
        await asyncio.to_thread(shutil.rmtree, fresh)
    if data.exists():
        data.rmdir()  # empty, or not ours to delete: then this raises
    fresh.mkdir(mode=0o700)
    if account is not None:
        os.chown(fresh, *account)
    initdb = ServerProcess("Postgres", home / "initdb.log", [])
    options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions"]
    await initdb.spawn([*death_signal_prefix(account), str(programs / "initdb"), "-D", str(fresh), *options], fresh)
    try:
        succeeded = await initdb.ended_within(INITDB_WITHIN_S) and initdb.exit_status == 0
    finally:
        await initdb.stop()
    if not succeeded:
        raise initdb.failure("could not create its database", DO)
    fresh.rename(data)


def forget_dead_postmaster(data: Path, sockets: Path) -> None:
    """Remove a dead server's lock files. Their pid may be a zombie that nobody reaps, or another program.

    Only after `end_leftovers`: nothing runs in `data`, which is what the files would protect.
    """
    if PROC.is_dir() and not processes_in(data, PROGRAM):
        for file in (data / "postmaster.pid", sockets / ".s.PGSQL.5432", sockets / ".s.PGSQL.5432.lock"):
            file.unlink(missing_ok=True)


def write_access(data: Path) -> None:
    """Let in only processes of our own user and of root, as any role: the kernel tells who connects."""
    try:
        us = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        do = "start Amends as a user with an account, or name a Postgres of your own: [postgres] dsn"
        raise ServerFailed(f"user {os.geteuid()} has no account (/etc/passwd), which Postgres needs; {do}") from None
    _write(data / "pg_hba.conf", "local all,replication all peer map=amends\n")
    _write(data / "pg_ident.conf", "".join(f'amends "{name}" all\n' for name in sorted({us, "root"})))


def _write(file: Path, text: str) -> None:
    # Replaced whole, and readable for the account of the server, whoever we are and whatever our umask.
    fresh = file.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o644)
    fresh.replace(file)


async def ensure_database(superuser_dsn: str) -> None:
    """Create the role `amends` (may make roles, no superuser) and its database, each if it is missing."""
    connection = await asyncpg.connect(superuser_dsn, timeout=10.0, command_timeout=60.0)
    try:
        if not await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = 'amends'"):
            await connection.execute("CREATE ROLE amends LOGIN CREATEROLE")
        if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = 'amends'"):
            await connection.execute("CREATE DATABASE amends OWNER amends")
    finally:
        await connection.close(timeout=5.0)
