"""The schema of a release: numbered migrations, each run once and kept with its hash, and the views.

A migration expands (the release before lives with it) or contracts, as its first line says. So one step back is a
start: what an older release does not know of a database it leaves alone, if all of it only expands.
"""

import logging
import re
from typing import Any

import asyncpg

from adapters.postgres.statements import migrations, statement, views
from amends.values.canonical import sha256
from amends.values.errors import BadConfiguration

log = logging.getLogger("amends.lease")
MIGRATION_S = 6 * 3600.0
_KIND = re.compile(r"-- (expand|contract): \S")


def kind_of(text: str) -> str:
    """What a migration does to the release before: `expand` or `contract`, which is also what it says nothing of."""
    found = _KIND.match(text)
    return found[1] if found else "contract"


async def check(connection: "asyncpg.Connection[Any]") -> list[str]:
    """The expanding migrations of a later release that this one does not know.

    Raises `BadConfiguration` for others that it does not know, and for a database of other migrations.
    """
    if not await connection.fetchval(statement("has_migrations")):
        return []
    rows = await connection.fetch(statement("done_migrations"))
    _check_known({row["number"]: row["sha256"] for row in rows})
    known = {number for number, _, _ in migrations()}
    later = [row for row in rows if row["number"] not in known]
    if closed := [row["name"] for row in later if row["kind"] != "expand"]:
        raise BadConfiguration(
            f"the database has migrations of a newer release that this one cannot live with: {', '.join(closed)}; "
            "use that release"
        )
    return [row["name"] for row in later]


def _check_known(done: dict[int, str]) -> None:
    for number, name, text in migrations():
        if number in done and done[number] != sha256(text.encode()):
            raise BadConfiguration(f"the database was made by another {name}; use the release that made it")


async def migrate(connection: "asyncpg.Connection[Any]", version: str) -> None:
    """Bring the database up to this release; what a later one has added stays."""
    await connection.execute(statement("create_migrations"))
    if later := await check(connection):
        log.warning("one step back: a later release has added %s, which this one leaves alone", ", ".join(later))
    done = {row["number"] for row in await connection.fetch(statement("done_migrations"))}
    async with connection.transaction():  # of all: what is half made shows outsiders half of what there is
        await connection.execute(statement("unbounded"))
        for number, name, text in migrations():
            if number not in done:
                await connection.execute(text, timeout=MIGRATION_S)  # a large table takes what it takes
                await connection.execute(
                    statement("record_migration"), number, name, sha256(text.encode()), kind_of(text)
                )
        await _apply_views(connection, version)
        await connection.execute(statement("add_months"))


async def _apply_views(connection: "asyncpg.Connection[Any]", version: str) -> None:
    """Bring the views up to this release, unless a later one has applied its own: they show all that these show."""
    digest, applied = sha256(views().encode()), await connection.fetchrow(statement("applied_views"))
    if applied is not None and (applied["sha256"] == digest or _order(applied["version"]) > _order(version)):
        return
    await connection.execute(views())
    await connection.execute(statement("record_views"), digest, version)


def _order(version: str) -> list[int]:
    """The place of a release among others: the numbers of its version, without what marks a candidate."""
    return [int(number) for number in re.findall(r"\d+", version)[:3]]
