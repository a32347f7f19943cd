"""Directories for tests, in memory where there is room: most of a start is waiting for a disk. And a made database.

What a test is about survives the death of processes, not that of the machine, so memory shows it as well as a disk.
"""

import asyncio
import atexit
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import asyncpg

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.postgres.lease import Lease

MEMORY, DISK = Path("/dev/shm"), Path("/tmp")  # short: sockets stand below them
ROOM = 4 << 30
_made: list[Path] = []


def scratch(prefix: str) -> Path:
    """A new directory that another account can enter (pytest's own are closed)."""
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    base = Path(tempfile.mkdtemp(prefix=prefix, dir=MEMORY if roomy else DISK))
    base.chmod(0o755)
    return base


async def migrate(dsn: str, superuser_dsn: str) -> None:
    """Have the product make all of its schema in an empty database, and leave nothing by which one sees who did."""
    lease = Lease(dsn, "template")
    await lease.acquire_now()
    await lease.prepare("template", version("amends"), 0)
    await lease.aclose()
    connection = await asyncpg.connect(superuser_dsn)
    await connection.execute("SET session_replication_role = replica; DELETE FROM lease; DELETE FROM runtime_epoch; "
                             "UPDATE journal_head SET epoch = 0")  # fmt: skip
    await connection.close()


async def with_database(state_dir: Path) -> None:
    """Give a new state directory an embedded Postgres' database that was made before, with a schema and no rows."""
    home = state_dir / "postgres"
    if home.exists():
        return
    if not _made:
        base = scratch("amends-made-")
        atexit.register(shutil.rmtree, base, ignore_errors=True)
        postgres = EmbeddedPostgres(base / "state")
        await postgres.start()
        await migrate(postgres.dsn, postgres.superuser_dsn)
        await postgres.stop()
        _made.append(base / "state" / "postgres" / "data")
    home.mkdir(mode=0o711, parents=True)
    copying = await asyncio.create_subprocess_exec("cp", "-a", str(_made[0]), str(home / "data"))
    assert await copying.wait() == 0
