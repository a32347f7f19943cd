"""The queries behind `qry.<entity>.get` and `.list`: filters, pages, refusals, and a Postgres that goes away."""

import asyncio
import base64
from typing import Any

import asyncpg
import msgspec
import pytest

from adapters.postgres.reading import ENTITIES, ReadSide
from amends.values.errors import Rejected, Unavailable
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import whole_story


async def test_every_entity_can_be_listed_and_each_row_got_by_its_id(database: Database) -> None:
    await whole_story(database.book)
    for entity in ENTITIES:
        page = await database.read.page(entity, {})
        msgspec.json.encode(page)
        for row in page["items"][:2]:
            assert await database.read.get(entity, row[ENTITIES[entity]]) == row
    for entity in ("span", "allocations", 'node"; DROP TABLE nodes; --'):
        with pytest.raises(Rejected) as refused:
            await database.read.page(entity, {})
        assert (refused.value.code, refused.value.details) == ("invalid_request", {"field": "entity"})


async def test_pages_cover_everything_once_in_a_stable_order(database: Database) -> None:
    await whole_story(database.book)
    read = database.read
    everything = [row["step_id"] for row in (await read.page("step", {}, limit=500))["items"]]
    found: list[str] = []
    cursor = None
    while True:
        page = await read.page("step", {}, limit=3, cursor=cursor)
        found += [row["step_id"] for row in page["items"]]
        cursor = page["cursor"]
        if cursor is None:
            break
        assert len(page["items"]) == 3
    assert found == everything == sorted(everything)


async def test_a_page_ends_where_a_reply_is_full_and_goes_on_behind_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await whole_story(database.book)
    read = database.read
    everything = (await read.page("step", {}, limit=500))["items"]
    one = len(msgspec.json.encode(everything[0]))
    for room, longest in ((1, 1), (3 * one, 4)):
        monkeypatch.setattr("adapters.postgres.reading.PAGE_BYTES", room)
        found: list[dict[str, Any]] = []
        cursor = None
        while cursor is not None or not found:
            page = await read.page("step", {}, limit=500, cursor=cursor)
            assert 1 <= len(page["items"]) <= longest
            found += page["items"]
            cursor = page["cursor"]
        assert found == everything


async def test_filters_are_by_column_of_any_type(database: Database) -> None:
    entities = await whole_story(database.book)
    read = database.read
    owed = {"state": "failed", "cleanup_pending": False, "rate_uminor_per_hour": 249_000_000, "activated_us": None}
    page = await read.page("allocation", owed)
    assert [row["allocation_id"] for row in page["items"]] == [entities["failed"]]
    assert (await read.page("allocation", {**owed, "node_id": "n2"}))["items"] == []
    assert len((await read.page("node", {"labels": {"site": "a"}}))["items"]) == 2
    assert (await read.page("node", {"labels": {}}))["items"] == []
    quote = await read.page("allocation", {"account_id": "' OR 1=1 --"})
    assert quote["items"] == []
    for entity in ("allocation", "notification", "node", "step"):
        assert await read.page(entity, {"state": None}) == {"items": [], "cursor": None}


BAD: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("node", {"stat": "ready"}, {}, "stat"),
    ("node", {'state" = state OR "state': "x"}, {}, 'state" = state OR "state'),
    ("node", {"state": 5}, {}, "state"),
    ("node", {"state": "a\0b"}, {}, "state"),
    ("node", {"state": "\ud800"}, {}, "state"),
    ("node", {"state": "x" * 2000}, {}, "state"),
    ("node", {"dirty": 1}, {}, "dirty"),
    ("node", {"epoch": True}, {}, "epoch"),
    ("node", {"epoch": "1"}, {}, "epoch"),
    ("node", {"epoch": 1 << 63}, {}, "epoch"),
    ("node", {"flap_count": 1 << 31}, {}, "flap_count"),
    ("node", {}, {"limit": 0}, "limit"),
    ("node", {}, {"limit": 501}, "limit"),
    ("node", {}, {"limit": True}, "limit"),
    ("node", {}, {"limit": "5"}, "limit"),
    ("node", {}, {"cursor": "nonsense"}, "cursor"),
    ("node", {}, {"cursor": 5}, "cursor"),
    ("node", {}, {"cursor": base64.urlsafe_b64encode(b'["step","step_x"]').decode()}, "cursor"),
]


@pytest.mark.parametrize(("entity", "filters", "options", "field"), BAD)
async def test_what_the_caller_got_wrong_is_named(
    database: Database, entity: str, filters: dict[str, Any], options: dict[str, Any], field: str
) -> None:
    with pytest.raises(Rejected) as refused:
        await database.read.page(entity, filters, **options)
    assert (refused.value.code, refused.value.details["field"]) == ("invalid_request", field)


async def test_an_id_that_is_not_there_is_not_found(database: Database) -> None:
    for identifier, code in (("n9", "not_found"), (5, "invalid_request"), ("\0", "invalid_request")):
        with pytest.raises(Rejected) as refused:
            await database.read.get("node", identifier)
        assert refused.value.code == code


async def test_reading_writes_nothing_and_survives_a_lost_connection(database: Database) -> None:
    read = database.read
    assert await read.rows("violations") == []
    with pytest.raises(Exception, match="read-only"):
        await read.rows("write_cursor", "otlp", 5)
    superuser = await asyncpg.connect(database.superuser_dsn)
    await superuser.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'amends-read'"
    )
    await superuser.close()
    assert await read.rows("violations") == []


async def test_without_postgres_it_is_unavailable(tmp_path: Any) -> None:
    with pytest.raises(Unavailable):
        await ReadSide(f"postgresql://amends@/amends?host={tmp_path}").rows("violations")


async def test_many_first_questions_read_the_catalog_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a burst before anything is known of the views, and a Postgres that is away at first
    read, asked = ReadSide(database.dsn), 0
    rows = read.rows

    async def counted(name: str, *args: Any, **options: Any) -> list[dict[str, Any]]:
        nonlocal asked
        asked += name == "view_columns"
        if asked == 1:
            raise Unavailable("away")
        return await rows(name, *args, **options)

    monkeypatch.setattr(read, "rows", counted)
    burst = await asyncio.gather(*(read.page("node", {}) for _ in range(50)), return_exceptions=True)
    assert {type(each) for each in burst} == {Unavailable}
    # then one of them asked for all, and the next burst asks again, once
    assert asked == 1
    pages = await asyncio.gather(*(read.page("node", {}) for _ in range(50)))
    assert (asked, pages[0]) == (2, {"items": [], "cursor": None})
    await read.aclose()
