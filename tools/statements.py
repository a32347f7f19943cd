"""Write `sql/derived.sql` and `views/0_states.sql` from what row types and actor kinds declare (`./run pages`)."""

from pathlib import Path

from adapters.postgres.derived import statements_of, states_of
from amends.values.records import ROWS
from supervisors.rental import RENTAL

FOLDER = Path(__file__).parents[1] / "adapters" / "postgres"
FILE, VIEW = FOLDER / "sql" / "derived.sql", FOLDER / "views" / "0_states.sql"
HEAD = """\
-- Made by `./run pages` from what row types (`Table`) and actor kinds declare: change those, not this.
"""


def text() -> str:
    """The file as it should be."""
    made = statements_of((*ROWS, *RENTAL.rows), RENTAL.kinds)
    return HEAD + "".join(f"\n-- name: {name}\n-- {purpose}\n{body}\n" for name, purpose, body in made)


def view() -> str:
    """The file of the view over all states as it should be."""
    return f"{HEAD}\n-- Every actor's state, whatever table it is in.\n{states_of(RENTAL.kinds)}\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    VIEW.write_text(view(), encoding="utf-8")
