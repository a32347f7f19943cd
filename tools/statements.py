"""Write `adapters/postgres/sql/derived.sql` from what row types and actor kinds declare (`./run pages`)."""

from pathlib import Path

from adapters.postgres.derived import statements_of
from amends.values.records import ROWS
from supervisors.rental import RENTAL

FILE = Path(__file__).parents[1] / "adapters" / "postgres" / "sql" / "derived.sql"
HEAD = """\
-- Made by `./run pages` from what row types (`Table`) and actor kinds declare: change those, not this.
"""


def text() -> str:
    """The file as it should be."""
    made = statements_of((*ROWS, *RENTAL.rows), RENTAL.kinds)
    return HEAD + "".join(f"\n-- name: {name}\n-- {purpose}\n{body}\n" for name, purpose, body in made)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
