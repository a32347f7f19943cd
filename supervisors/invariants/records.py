"""Plain records as the checks read them: rows by table, from a simulated world or from Postgres."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

from msgspec import Struct

Row = Mapping[str, Any]
Tables = Mapping[str, Iterable[Row]]


class Violation(Struct, frozen=True):
    """One thing that does not hold, by its name in `docs/reliability.md`."""

    name: str
    ref: str
    what: str


class Records:
    """All rows of one committed instant.

    `tables["state"]` has the states of all actors: kind, id, state, due_us and the decoded body. `journal_head` has one
    row. A table that is not there is empty.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.states = {(row["kind"], row["id"]): row for row in tables["state"]}
        self._of_kind = grouped(self.states.values(), itemgetter("kind"))
        self.moving = {row["entity"] for row in self.of("step") if row["state"] == "intended"}
        self.told = {f"{row['to_kind']}:{row['to_id']}" for row in self.of("message")}
        self.moving |= self.told
        self.with_open_case = {row["entity"] for row in self.of("ops_case") if row["state"] == "open"}
        self.with_case = {row["entity"] for row in self.of("ops_case") if row["state"] != "resolved"}
        self.debts = [row for row in self.of("debts") if row["settled_us"] is None]
        self.assignments = [row for row in self.of("assignments") if row["state"] != "ended"]

    def of(self, table: str) -> list[Row]:
        """All rows of a table."""
        return list(self._tables.get(table, ()))

    def actors(self, kind: str, *states: str) -> list[Row]:
        """The states of a kind, of some names or of all."""
        return [row for row in self._of_kind.get(kind, ()) if not states or row["state"] in states]

    def allocation(self, identifier: str | None) -> Row | None:
        """The state of an allocation."""
        return self.states.get(("allocation", identifier or ""))


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Rows by what `key` says of them."""
    found: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found
