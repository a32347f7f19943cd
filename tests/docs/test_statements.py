"""The statements that run are those which the declarations make (`./run pages`)."""

from adapters.postgres.derived import statements_of
from amends.domain.domain import rows_of
from supervisors.rental import RENTAL
from tests.adapters.postgres.database import Database
from tools.statements import FILE, VIEW, text, view

MADE = tuple(statements_of(rows_of((RENTAL,)), RENTAL.kinds))


def test_the_file_is_what_the_declarations_make() -> None:
    assert FILE.read_text(encoding="utf-8") == text()
    assert VIEW.read_text(encoding="utf-8") == view()


async def test_reading_what_is_live_finds_its_index_in_a_table_of_history(database: Database) -> None:
    body = '{"state": "ended"}'
    rows = [("nodes", "node", "retired"), ("allocations", "allocation", "released"), ("notifications", "ntf", "sent")]
    for table, prefix, state in rows:
        await database.force(
            f"INSERT INTO {table} SELECT '{prefix}' || n, '{state}', 1, NULL, '{body}', false, '{state}' "
            "FROM generate_series(1, 20000) n; "
            f"ANALYZE {table}"
        )
        query = next(each for name, _, each in statements_of((), RENTAL.kinds) if name == f"live_{table}")
        plan = "\n".join(row["QUERY PLAN"] for row in await database.all(f"EXPLAIN {query.rstrip(';')}"))
        assert f"{table}_live" in plan, plan


async def test_every_statement_is_one_that_the_database_takes(database: Database) -> None:
    for name, _, query in MADE:
        assert await database.all(f"PREPARE {name} AS {query}") == []
