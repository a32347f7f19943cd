"""What the digest chain says of each row, and what each row is like now, side by side in a file: memory stays small.

SQLite in a temporary file of its own; it is gone with the process.
"""

import sqlite3
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from amends.values.facets import Facet, each_leaf

_TABLES: Final = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE leaf (facet TEXT, key TEXT, digest TEXT, rank INTEGER, PRIMARY KEY (facet, key)) WITHOUT ROWID;
CREATE TABLE found (
    facet TEXT, key TEXT, digest TEXT, seq INTEGER, twice INTEGER DEFAULT 0, PRIMARY KEY (facet, key)
) WITHOUT ROWID;
"""
_PUT: Final = (
    "INSERT INTO leaf VALUES (?, ?, ?, ?) ON CONFLICT (facet, key) DO UPDATE SET digest = excluded.digest, "
    "rank = excluded.rank WHERE excluded.digest = '' OR "
)
# See `amends.values.facets.Wins`.
_WINS: Final = {
    "first": "false",
    "last": "true",
    "final": "leaf.rank = 0",
    "least": "excluded.rank < leaf.rank",
    "newest": "excluded.rank > leaf.rank",
}
_FIND: Final = (
    "INSERT INTO found (facet, key, digest, seq) VALUES (?, ?, ?, ?) ON CONFLICT (facet, key) DO UPDATE SET twice = 1"
)
_REWRITTEN: Final = (
    "SELECT key FROM found JOIN leaf USING (facet, key) "
    "WHERE facet = ? AND found.digest <> leaf.digest AND leaf.digest <> ''"
)
_UNWRITTEN: Final = (
    "SELECT key FROM found WHERE facet = ? AND digest <> ? "
    "AND NOT EXISTS (SELECT 1 FROM leaf WHERE leaf.facet = found.facet AND leaf.key = found.key) "
    "AND EXISTS (SELECT 1 FROM leaf AS born WHERE born.facet = ? AND born.key = found.key)"
)
_UNBORN: Final = (
    "SELECT key, seq FROM found WHERE facet = ? AND NOT EXISTS "
    "(SELECT 1 FROM leaf WHERE leaf.facet = found.facet AND leaf.key = found.key)"
)
_MISSING: Final = (
    "SELECT key FROM leaf WHERE facet = ? AND digest <> '' AND rank < ? AND NOT EXISTS "
    "(SELECT 1 FROM found WHERE found.facet = leaf.facet AND found.key = leaf.key)"
)
_PUT_BACK: Final = "SELECT key FROM found JOIN leaf USING (facet, key) WHERE facet = ? AND leaf.digest = ''"


class LeafFile:
    """The newest leaf of each facet and key, and the rows as they are found."""

    def __init__(self) -> None:
        self._file = sqlite3.connect("")  # a temporary file, removed by SQLite itself
        self._file.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def leave(self, facet: Facet, entry: list[object]) -> None:
        """What one commit left of a facet."""
        rows = [(facet.name, key, digest, rank) for key, digest, rank in each_leaf(facet, entry)]
        self._file.executemany(_PUT + _WINS[facet.wins], rows)

    def find(self, rows: list[tuple[str, str, str, int]]) -> None:
        """Rows as they are: facet, key, digest, place or 0."""
        self._file.executemany(_FIND, rows)

    def twice(self, birth: str) -> Iterable[str]:
        """Keys of which there are two rows, in the parts of one table."""
        return (key for (key,) in self._file.execute("SELECT key FROM found WHERE facet = ? AND twice", (birth,)))

    def rewritten(self, facet: str) -> Iterable[str]:
        """Keys of rows that are not what was written."""
        return (key for (key,) in self._file.execute(_REWRITTEN, (facet,)))

    def unwritten(self, facet: str, default: str, birth: str) -> Iterable[str]:
        """Keys of rows born in the chain that hold what no commit wrote there."""
        return (key for (key,) in self._file.execute(_UNWRITTEN, (facet, default, birth)))

    def unborn(self, birth: str) -> Iterable[tuple[str, int]]:
        """Keys and places of rows that no commit wrote."""
        return iter(self._file.execute(_UNBORN, (birth,)))

    def knows(self, facets: Iterable[str], key: str) -> bool:
        """Whether a commit wrote any of these facets of that key."""
        query = "SELECT EXISTS (SELECT 1 FROM leaf WHERE facet = ? AND key = ?)"
        return any(self._file.execute(query, (facet, key)).fetchone()[0] for facet in facets)

    def missing(self, birth: Facet) -> Iterable[str]:
        """Keys of rows that a commit wrote and that are not there, though nobody of ours takes them away."""
        upto = birth.gone_from if birth.ranked else int(not birth.fades)
        return (key for (key,) in self._file.execute(_MISSING, (birth.name, upto)))

    def put_back(self, birth: str) -> Iterable[str]:
        """Keys of rows that a commit took away and that are there."""
        return (key for (key,) in self._file.execute(_PUT_BACK, (birth,)))
