"""Statements made from what row types and actor kinds declare: writes, reads of what is live, states.

`python -m tools.statements` (`./run pages`) writes them to `sql/derived.sql`, which is what runs; a test compares.
"""

from collections.abc import Iterable, Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from msgspec import Struct

from amends.domain.kinds import ActorKind
from amends.values.facets import Facet
from amends.values.tables import Live, Table, table_of

_TYPES = {str: "text", int: "bigint", bool: "boolean"}
WIDTH = 116
OWING = ("owing", "timers", "runs", "cases")  # of a body, as `Store.is_over` looks at them


def statements_of(rows: Sequence[type[Struct]], kinds: Sequence[ActorKind]) -> Iterator[tuple[str, str, str]]:
    """(name, purpose, text) of all of them."""
    for row in rows:
        table = table_of(row)
        yield table.statement, _purpose(row), _write(row, table)
        if table.live is not None:
            yield live_name(row), f"What is live of {table.name}, as it was committed.", _live(row, table)
    for name, kind in {kind.table: kind for kind in kinds}.items():
        yield from _state(name, kind)


def live_name(row: type[Struct]) -> str:
    """The name of the read of a row type's live rows."""
    return table_of(row).statement.replace("write_", "live_", 1)


def _purpose(row: type[Struct]) -> str:
    said: str = (row.__doc__ or row.__name__).partition("\n")[0]
    return said


def columns_of(row: type[Struct]) -> dict[str, str]:
    """Field → the database's type; the order is that of the statement's parameters."""
    hints = get_type_hints(row)
    return {name: _type(hints[name]) for name in row.__struct_fields__}


def _type(hint: Any) -> str:
    if isinstance(hint, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    return _TYPES[hint]


def _write(row: type[Struct], table: Table) -> str:
    columns = {**columns_of(row), "jseq": "bigint"}
    if table.writes == "close":
        return _close(table, columns)
    known = " AS known" if table.writes == "upsert" else ""
    names = _wrapped(columns)
    if table.json:
        cast = _wrapped(f"{name}::json" if name in table.json else name for name in columns)
        source = f"SELECT\n{cast}\nFROM unnest(\n{_parameters(columns)}\n) AS row (\n{names}\n)"
    else:
        source = f"SELECT * FROM unnest(\n{_parameters(columns)}\n)"
    text = f"INSERT INTO {table.name}{known} (\n{names}\n)\n{source}"
    return text + (_merge(table) if table.writes == "upsert" else "") + ";"


def _merge(table: Table) -> str:
    """What a second row of a key does to the first (the simulated tables do the same in memory)."""
    merges = [part for facet in table.facets for part in _merges(facet)]
    if "jseq = excluded.jseq" not in merges:
        merges.append("jseq = excluded.jseq")
    newest = [facet.by for facet in table.facets if facet.wins == "newest"]
    where = "".join(f"\nWHERE known.{by} < excluded.{by}" for by in newest)
    return f"\nON CONFLICT ({', '.join(table.key)}) DO UPDATE SET\n" + _wrapped(merges) + where


def _merges(facet: Facet) -> Iterator[str]:
    for column in facet.columns:
        if facet.wins == "least":
            yield f"{column} = least(known.{column}, excluded.{column})"
        elif facet.keeps:
            (default,) = facet.default or ("",)
            kept = f"CASE excluded.{column} WHEN '{default}' THEN known.{column} ELSE excluded.{column} END"
            yield f"{column} = {kept}"
        elif facet.wins in ("last", "newest"):
            yield f"{column} = excluded.{column}"


def _close(table: Table, columns: dict[str, str]) -> str:
    """An update by key of what is open; of several rows of one key in a commit the last counts."""
    changed = list(dict.fromkeys(column for facet in table.facets for column in facet.columns))
    by = next(facet.by for facet in table.facets if facet.by)
    key = ", ".join(table.key)
    fits = [f"{table.name}.{column} = row.{column}" for column in table.key]
    if table.final:
        fits += [f"{table.name}.{column} NOT IN ({_quoted(values)})" for column, values in table.final.items()]
    else:
        fits.append(f"{table.name}.{by} IS NULL")
    source = f"unnest(\n{_parameters(columns)}\n) WITH ORDINALITY AS written (\n{_wrapped([*columns, 'place'])}\n)"
    return (
        f"UPDATE {table.name} SET\n" + _wrapped(f"{column} = row.{column}" for column in changed) + "\n"
        f"FROM (SELECT DISTINCT ON ({key}) * FROM {source} ORDER BY {key}, place DESC) AS row\n"
        f"WHERE {' AND '.join(fits)};"
    )  # fmt: skip


def _live(row: type[Struct], table: Table) -> str:
    assert table.live is not None
    order = ", ".join(("jseq", *table.key))
    where = condition(table.live)
    return f"SELECT\n{_wrapped(columns_of(row))}\nFROM {table.name}{where and f' WHERE {where}'}\nORDER BY {order};"


def condition(live: Live) -> str:
    """The rows that are live, in SQL; "" for all."""
    if live.is_in or live.not_in:
        return f"{live.column} {'IN' if live.is_in else 'NOT IN'} ({_quoted(live.is_in or live.not_in)})"
    return f"{live.column} IS NULL" if live.column else ""


def _state(table: str, kind: ActorKind) -> Iterator[tuple[str, str, str]]:
    shared = table == "actors"
    own = "id" if shared else f"{kind.name}_id"
    key = ("kind", own) if shared else (own,)
    columns = {**dict.fromkeys(key, "text"), "state": "text", "version": "bigint", "due_us": "bigint", "body": "text"}
    names = ", ".join(columns)
    of_kind, place = ("kind = $1 AND ", 2) if shared else ("", 1)
    yield (
        f"state_{table}",
        "Compare-and-set; a row whose version does not fit is left alone, and the count tells.",
        (
            f"INSERT INTO {table} AS known ({names})\n"
            f"SELECT {names.replace('body', 'body::jsonb')}\nFROM unnest(\n{_parameters(columns)}\n) AS row ({names})\n"
            f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET\n    state = excluded.state, version = excluded.version, "
            "due_us = excluded.due_us, body = excluded.body\nWHERE known.version = excluded.version - 1;"
        ),
    )
    yield (
        f"free_{table}",
        "Of these, the rows nobody else holds right now.",
        (f"SELECT {own} AS id FROM {table} WHERE {of_kind}{own} = ANY (${place}::text[]) FOR UPDATE SKIP LOCKED;"),
    )
    yield (
        f"read_{table}",
        "One actor.",
        (f"SELECT due_us, body::text AS body FROM {table} WHERE {of_kind}{own} = ${place};"),
    )
    yield (
        f"live_{table}",
        "Every actor that still lives or owes.",
        (
            f"SELECT {own} AS id, due_us, body::text AS body FROM {table}\n"
            f"WHERE {of_kind}({live_states(kind, shared=shared)})"
            f"\nORDER BY {own};"
        ),
    )


def live_states(kind: ActorKind, *, shared: bool) -> str:
    """The states of actors that live, or have ended and owe something; in a table of several kinds all are read."""
    ends = tuple(state for state, bound in kind.states.items() if bound == "end")
    if shared or not ends:
        return "true"
    return f"state NOT IN ({_quoted(ends)}) OR body ?| array[{_quoted(OWING)}]"


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def _parameters(columns: dict[str, str]) -> str:
    return _wrapped(f"${place}::{kind}[]" for place, kind in enumerate(columns.values(), 1))


def _wrapped(parts: Iterable[str]) -> str:
    """Parts with commas in indented lines."""
    lines, line = [], ""
    for part in parts:
        if line and len(line) + len(part) + 2 > WIDTH - 4:
            lines.append(f"    {line},")
            line = part
        else:
            line = f"{line}, {part}" if line else part
    return "\n".join([*lines, f"    {line}"])
