"""Every index says which query needs it, and every query it names is there (`views/4_indexes.sql`)."""

import re

import pytest

from adapters.postgres.filters import FILTERS
from adapters.postgres.statements import statements, views
from tests.adapters.postgres.database import Database

VIEWS = set(re.findall(r"VIEW (?:public_v1\.)?(\w+) AS", views()))


def is_there(use: str) -> bool:
    """Whether what an index is said to be for exists."""
    kind, _, what = use.partition(" ")
    if kind == "list":
        entity, _, columns = what.partition(" by ")
        return FILTERS[entity].allow(columns.split(", "))
    known = {"statement": statements().keys(), "view": VIEWS}
    return what in known[kind] if kind in known else kind == "unique" and bool(what)


@pytest.mark.slow
async def test_every_index_names_the_queries_that_need_it(database: Database) -> None:
    rows = await database.all(
        "SELECT relname AS name, obj_description(indexrelid, 'pg_class') AS said FROM pg_index "
        "JOIN pg_class ON pg_class.oid = indexrelid LEFT JOIN pg_constraint ON conindid = indexrelid "
        "WHERE relnamespace = 'public'::regnamespace AND conname IS NULL AND NOT relispartition"
    )
    assert len(rows) > 60
    assert [row["name"] for row in rows if not row["said"]] == []
    unknown = [(row["name"], use) for row in rows for use in row["said"].split("; ") if not is_there(use)]
    assert unknown == []
