"""How the rows of one type are kept, declared once beside the type: table, key, what is written together, what is live.

Statements, reads, the digest chain and the simulated journal are made from this. Pure.
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct

from amends.values.facets import Facet

Write = Literal["insert", "upsert", "close"]


class Live(Struct, frozen=True):
    """Which rows are read at a start: those whose column is (not) one of these values, or is null; "" reads all."""

    column: str = ""
    is_in: tuple[str, ...] = ()
    not_in: tuple[str, ...] = ()

    def holds(self, row: Struct) -> bool:
        """Whether this row is one of them."""
        if not self.column:
            return True
        value = getattr(row, self.column)
        if self.is_in:
            return value in self.is_in
        return value not in self.not_in if self.not_in else value is None


class Table(Struct, frozen=True, kw_only=True):
    """A row type's table. `facets`: its columns by who writes them, which says what a second row of one key does.

    `after`: a column of instants; those rows may be read at a start in which it lies after one, live or not. `found`:
    single rows may be asked for by their key, of one text. `json`: columns that the database keeps as JSON. `money`:
    what they hold is billed by. `final`: values of a column after which nothing closes a row anew.
    """

    name: str
    key: tuple[str, ...]
    facets: tuple[Facet, ...] = ()
    live: Live | None = None
    after: str = ""
    found: bool = False
    money: bool = False
    json: tuple[str, ...] = ()
    final: Mapping[str, tuple[str, ...]] = {}

    @property
    def statement(self) -> str:
        """The name of the statement that writes such rows."""
        return f"write_{self.facets[0].name if self.facets else self.name}".replace(".", "_")

    @property
    def writes(self) -> Write:
        """insert: a second row of a key is refused; upsert: it is merged; close: one that stands there gets its end."""
        wins = {facet.wins for facet in self.facets}
        if "first" not in wins and "final" in wins:
            return "close"
        return "upsert" if wins & {"last", "least", "newest"} else "insert"


def table_of(row: type[Struct]) -> Table:
    """The table that a row type declares; raises AttributeError where it declares none."""
    table: Table = cast("Any", row).table
    return table


def facets_of(row: type[Struct]) -> tuple[Facet, ...]:
    """The facets of a row type, each with its table and key."""
    return placed(table_of(row))


def placed(table: Table) -> tuple[Facet, ...]:
    """The facets of a table, each with its table and key."""
    return tuple(msgspec.structs.replace(facet, table=table.name, key=table.key) for facet in table.facets)
