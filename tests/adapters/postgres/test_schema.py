"""One step back: a release that meets what it does not know starts if all of that only adds, and else says why not."""

import logging
from typing import Any, NamedTuple

import asyncpg
import pytest

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.postgres import schema
from adapters.postgres.lease import Lease
from adapters.postgres.statements import migrations, views
from amends.values.errors import BadConfiguration
from tests.adapters.postgres.database import named

ADDS = (9001, "9001_colour.sql", "-- expand: nodes have a colour\nALTER TABLE nodes ADD COLUMN colour text;")
DROPS = (9002, "9002_plain.sql", "-- contract: nobody reads it\nALTER TABLE nodes DROP COLUMN colour;")
LATER_VIEW = "\nCREATE OR REPLACE VIEW public_v1.colour AS SELECT node_id FROM nodes;"


class Place(NamedTuple):
    """A migrated database of its own that nobody leads."""

    dsn: str
    superuser_dsn: str

    async def all(self, query: str) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.superuser_dsn)
        try:
            return [dict(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()


@pytest.fixture
def place(server: EmbeddedPostgres, empty: str) -> Place:
    return Place(named(server.dsn, empty), named(server.superuser_dsn, empty))


async def start(place: Place, version: str) -> None:
    """A runtime of that version takes the lease, brings the schema up, and ends."""
    lease = Lease(place.dsn, version)
    try:
        assert await lease.acquire_now()
        await lease.prepare(version, version, 1)
    finally:
        await lease.aclose()


async def later(place: Place, monkeypatch: pytest.MonkeyPatch, *more: tuple[int, str, str]) -> None:
    """A later release with these migrations, and a view of its own, has been there."""
    with monkeypatch.context() as patched:
        patched.setattr(schema, "migrations", lambda: (*migrations(), *more))
        patched.setattr(schema, "views", lambda: views() + LATER_VIEW)
        await start(place, "9.0.0")


async def test_a_release_lives_with_what_the_next_one_has_added(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await later(place, monkeypatch, ADDS)
    kinds = {row["number"]: row["kind"] for row in await place.all("SELECT number, kind FROM schema_migration")}
    assert (kinds[9001], kinds[18], kinds[1]) == ("expand", "expand", "contract")
    with caplog.at_level(logging.WARNING, "amends.lease"):
        await start(place, "8.9.1")
    assert "one step back: a later release has added 9001_colour.sql" in caplog.text
    # and its views stay: they show all that ours show, and what lies in the database by now
    assert await place.all("SELECT * FROM public_v1.colour") == []
    applied = "SELECT version FROM schema_views"
    assert await place.all(applied) == [{"version": "9.0.0"}]
    # when the later one is back, there is nothing to do; what comes after it applies its own
    await later(place, monkeypatch, ADDS)
    await start(place, "9.0.10")
    assert await place.all(applied) == [{"version": "9.0.10"}]


@pytest.mark.parametrize("held", [False, True])
async def test_a_release_refuses_what_a_later_one_has_taken_away_and_names_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    await later(place, monkeypatch, ADDS, DROPS)
    holder = Lease(place.dsn, "holder")
    if held:
        with monkeypatch.context() as patched:
            patched.setattr(schema, "migrations", lambda: (*migrations(), ADDS, DROPS))
            assert await holder.acquire_now()
    with pytest.raises(BadConfiguration, match=r"cannot live with: 9002_plain\.sql; use that release"):
        await start(place, "8.9.1")
    await holder.aclose()


async def test_a_migration_of_a_release_that_did_not_say_so_contracts(place: Place) -> None:
    # given a database of a release whose migrations said nothing yet
    await place.all("ALTER TABLE schema_migration DROP COLUMN kind")
    await place.all("INSERT INTO schema_migration VALUES (9003, '9003_old.sql', '')")
    with pytest.raises(BadConfiguration, match=r"9003_old\.sql"):
        await start(place, "9.0.0")
    await place.all("DELETE FROM schema_migration WHERE number = 9003")
    await start(place, "9.0.0")
    assert await place.all("SELECT DISTINCT kind FROM schema_migration") == [{"kind": "contract"}]


async def test_a_migration_that_was_edited_is_refused(place: Place) -> None:
    await place.all("UPDATE schema_migration SET sha256 = 'x' WHERE number = 18")
    with pytest.raises(BadConfiguration, match=r"made by another 0018_release\.sql"):
        await start(place, "9.0.0")
