"""`amends restore`: mark a database that was restored from a backup, or a replica that was promoted late.

The runtime is stopped. The next one finds the mark, takes a far higher epoch, and has every node looked at before it is
rented (`actors/node/restored.py`).
"""

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from actors.between import RESTORED_BY
from adapters.embedded.account import holds_database, known_home
from adapters.embedded.postgres import EmbeddedPostgres
from adapters.postgres.restore import Held, mark_restored
from amends.domain.api import Reason
from amends.values.errors import BadConfiguration, Fenced
from supervisors.boot.holders import Holders
from supervisors.loading import RESTORE, Restore
from supervisors.settings import Settings

DONE, REFUSED = 0, 1


async def restore(settings: Settings, reason: str) -> int:
    """Mark it and say so; exit status. Raises `BadConfiguration`, `Unavailable`."""
    try:
        msgspec.convert(reason, Reason)
    except msgspec.ValidationError as error:
        raise BadConfiguration(f"--reason: {error}") from None
    state_dir = Path(settings.state_dir).absolute()
    at_us = time.time_ns() // 1000

    def body(number: int) -> bytes:
        return msgspec.json.encode(Restore(number, reason, at_us))

    holders = Holders(state_dir, "restore")
    try:
        async with _database(settings, state_dir) as dsn:
            is_dead = holders.is_dead if state_dir.is_dir() else _nobody
            number = await mark_restored(dsn, RESTORE, RESTORED_BY, body, at_us, is_dead)
    except (Held, Fenced) as error:
        print(f"amends: {error}", file=sys.stderr)
        return REFUSED
    finally:
        await holders.aclose()
    print(f"marked: the next runtime has an epoch above {number} and quarantines every node until it was looked at")
    return DONE


def _nobody(holder: str) -> bool:
    return False


@asynccontextmanager
async def _database(settings: Settings, state_dir: Path) -> AsyncIterator[str]:
    """Where Postgres is: the configured one, or the embedded one, started for this."""
    if settings.postgres.dsn:
        yield settings.postgres.dsn
        return
    if not holds_database(known_home(state_dir)):
        raise BadConfiguration(f"{state_dir} holds no database: give --config with its state_dir, or a DSN")
    postgres = EmbeddedPostgres(state_dir)
    await postgres.start()
    try:
        yield postgres.dsn
    finally:
        await postgres.stop()
