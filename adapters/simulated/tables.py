"""The tables of a simulated database: rows by key, written as row types declare, unique as the schema says.

What one transaction does can be taken back as long as it has not committed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from adapters.simulated.uniques import CHECKS, UNIQUES, Unique
from amends.ports.journal import StateWrite
from amends.values.errors import Refused
from amends.values.tables import Table, table_of

UNIQUE_VIOLATION, CHECK_VIOLATION = "23505", "23514"
Key = tuple[Any, ...]
Columns = dict[str, Any]
_PLACE = ("jseq", "begun_jseq")


class Tables:
    """All tables of one database. `states`: the state table of each actor kind."""

    def __init__(self, states: Mapping[str, str], rows: Iterable[type[Struct]]) -> None:
        self._kinds = dict(states)
        self.states: dict[tuple[str, str], StateWrite] = {}
        self.rows: dict[str, dict[Key, Columns]] = {}
        self._defaults: dict[str, Columns] = {}
        self._unique = {unique: dict[Key, Key]() for unique in UNIQUES}
        self._undo: list[Callable[[], object]] = []
        for row in rows:
            table = table_of(row)
            self.rows.setdefault(table.name, {})
            if table.writes == "close":
                defaults = self._defaults.setdefault(table.name, {})
                for facet in table.facets:
                    defaults.update(zip(facet.columns, facet.default or (), strict=False))

    # --- transactions --------------------------------------------------------------------------------

    def commit(self) -> None:
        """What was done stays."""
        self._undo.clear()

    def rollback(self) -> None:
        """What was done since the last commit was never done."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def _put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        if key in table:
            old = table[key]
            self._undo.append(lambda: table.__setitem__(key, old))
        else:
            self._undo.append(lambda: table.pop(key, None))
        table[key] = value

    def _drop(self, table: dict[Any, Any], key: Any) -> None:
        old = table.pop(key)
        self._undo.append(lambda: table.__setitem__(key, old))

    # --- states --------------------------------------------------------------------------------------

    def write_state(self, write: StateWrite) -> None:
        """Compare-and-set on the version; raises `Refused`."""
        key = (write.kind, write.id)
        known = self.states.get(key)
        if (known.version if known is not None else write.version - 1) != write.version - 1:
            raise Refused("version", f"{self._kinds[write.kind]}: a row has another version than the one decided on")
        before = self._body(known) if known is not None else None
        self._keep_unique(self._kinds[write.kind], key, before, self._body(write), state=True)
        self._put(self.states, key, write)

    @staticmethod
    def _body(write: StateWrite) -> Columns:
        body: Columns = msgspec.json.decode(write.body)
        return {**body, "state": write.state}

    # --- rows ----------------------------------------------------------------------------------------

    def write(self, row: Struct, jseq: int) -> None:
        """Write one row as its type declares; raises `Refused`."""
        table = table_of(type(row))
        columns = {**msgspec.structs.asdict(row), "jseq": jseq}
        key = tuple(columns[name] for name in table.key)
        for check in CHECKS:
            if check.table == table.name and not check.holds(columns):
                raise Refused(CHECK_VIOLATION, f"{table.name}: {key} violates it", check.name)
        known = self.rows[table.name].get(key)
        if table.writes == "close":
            if known is not None and self._is_open(table, known):
                self._replace(table.name, key, known, known | {n: columns[n] for n in _closed(table)})
        elif known is None:
            born = {**self._defaults.get(table.name, {}), **columns, "begun_jseq": jseq}
            self._replace(table.name, key, None, born)
        elif table.writes == "upsert":
            self._replace(table.name, key, known, _merged(table, known, columns))
        else:
            raise Refused(UNIQUE_VIOLATION, f"{table.name}: {key} is there", f"{table.name}_pkey")

    @staticmethod
    def _is_open(table: Table, known: Columns) -> bool:
        if table.final:
            return all(known[column] not in values for column, values in table.final.items())
        by = next(facet.by for facet in table.facets if facet.by)
        return known[by] is None

    def remove(self, table: str, key: Key) -> bool:
        """Take a row away; False if there is none."""
        known = self.rows[table].get(key)
        if known is None:
            return False
        self._keep_unique(table, key, known, None)
        self._drop(self.rows[table], key)
        return True

    def live(self, row: type[Struct]) -> Iterator[Struct]:
        """The live rows of a type, in the order of their commits."""
        table = table_of(row)
        assert table.live is not None
        found = sorted(self.rows[table.name].values(), key=lambda each: (each["jseq"], *(each[k] for k in table.key)))
        for columns in found:
            made = row(**{name: columns[name] for name in row.__struct_fields__})
            if table.live.holds(made):
                yield made

    def _replace(self, table: str, key: Key, before: Columns | None, after: Columns) -> None:
        self._keep_unique(table, key, before, after)
        self._put(self.rows[table], key, after)

    def _keep_unique(
        self, table: str, key: Key, before: Columns | None, after: Columns | None, *, state: bool = False
    ) -> None:
        for unique, held in self._unique.items():
            if unique.table == table and unique.state == state:
                self._move(unique, held, key, before, after)

    def _move(
        self, unique: Unique, held: dict[Key, Key], key: Key, before: Columns | None, after: Columns | None
    ) -> None:
        old = unique.key(before) if before is not None else None
        new = unique.key(after) if after is not None else None
        if old == new:
            return
        if new is not None and held.get(new, key) != key:
            raise Refused(UNIQUE_VIOLATION, f"{unique.name}: {new} is another row's", unique.name)
        if old is not None:
            self._drop(held, old)
        if new is not None:
            self._put(held, new, key)


def _closed(table: Table) -> set[str]:
    return {column for facet in table.facets for column in facet.columns if column != "begun_jseq"}


def _merged(table: Table, known: Columns, new: Columns) -> Columns:
    """What stands after a second row of a key; what no facet merges stays as it was born."""
    changes: Columns = {}
    for facet in table.facets:
        values = {column: new[column] for column in facet.columns if column not in _PLACE}
        if facet.wins == "last" and not (facet.keeps and tuple(values.values()) == facet.default):
            changes |= values
        elif facet.wins == "least":
            changes |= {name: _least(known[name], value) for name, value in values.items()}
        elif facet.wins == "newest":
            if known[facet.by] >= new[facet.by]:
                return known
            changes |= values
    return {**known, **changes, "jseq": new["jseq"]}


def _least(known: int | None, new: int | None) -> int | None:
    return min((value for value in (known, new) if value is not None), default=None)
