"""Statements made from what row types and actor kinds declare: writes, reads of what is live, states.

`python -m tools.statements` (`./run pages`) writes them to `sql/derived.sql`, which is what runs; a test compares.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Struct

from amends.domain.kinds import ActorKind
from amends.values.facets import Facet
from amends.values.tables import Live, Table, table_of

_TYPES = {str: "text", int: "bigint", bool: "boolean"}
WIDTH = 116


def statements_of(rows: Sequence[type[Struct]], kinds: Sequence[ActorKind]) -> Iterator[tuple[str, str, str]]:
    """(name, purpose, text) of all of them."""
    for row in rows:
        table = table_of(row)
        yield table.statement, _purpose(row), _write(row, table)
        if table.live is not None:
            yield live_name(row), f"What is live of {table.name}, as it was committed.", _live(row, table)
        if table.after:
            yield after_name(row), f"What of {table.name} has its {table.after} after an instant.", _after(row, table)
        if table.found:
            yield found_name(row), f"The row of {table.name} with that key.", _found(row, table)
    for name, kind in {kind.table: kind for kind in kinds}.items():
        yield from _state(name, kind)


def states_of(kinds: Sequence[ActorKind]) -> str:
    """The view over the states of all kinds, whatever table they are in."""
    named = "{0} AS kind, {1} AS id, {0} || ':' || {1} AS ref, state, due_us, live, body"
    own = [(f"'{kind.name}'", f"{kind.name}_id", kind.table) for kind in kinds if kind.table != "actors"]
    parts = [f"SELECT {named.format(kind, key)} FROM {table}" for kind, key, table in (*own, ("kind", "id", "actors"))]
    return "CREATE OR REPLACE VIEW entity_state AS\n" + "\nUNION ALL\n".join(parts) + ";"


def live_name(row: type[Struct]) -> str:
    """The name of the read of a row type's live rows."""
    return table_of(row).statement.replace("write_", "live_", 1)


def after_name(row: type[Struct]) -> str:
    """The name of the read of a row type's rows after an instant."""
    return table_of(row).statement.replace("write_", "after_", 1)


def found_name(row: type[Struct]) -> str:
    """The name of the read of one of a row type's rows by its key."""
    return table_of(row).statement.replace("write_", "find_", 1)


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
    listed = _wrapped([*columns, *_month(row, table)])
    cast = {name: f"{name}::json" if name in table.json else name for name in columns} | _month(row, table)
    source = f"SELECT\n{_wrapped(cast.values())}\nFROM {_document(columns)}"
    text = f"INSERT INTO {table.name}{known} (\n{listed}\n)\n{source}"
    return text + (_merge(table) if table.writes == "upsert" else "") + ";"


def _month(row: type[Struct], table: Table) -> dict[str, str]:
    """The part of its table in which a row that may be written ended lies; what is open stays in the one of 0."""
    by = next((facet.by for facet in table.facets if facet.wins == "final"), "")
    return {"month": f"CASE WHEN {by} IS NULL THEN 0 ELSE amends_month() END"} if by in columns_of(row) else {}


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
    """An update by key of what is open, which goes to the ended ones with its end; the last of a commit counts."""
    changed = list(dict.fromkeys(column for facet in table.facets for column in facet.columns))
    by = next(facet.by for facet in table.facets if facet.by)
    key = ", ".join(table.key)
    fits = [f"{table.name}.{column} = row.{column}" for column in table.key]
    fits += [f"{table.name}.{next(iter(columns))} = ANY ($2::text[])", f"{table.name}.month = 0"]  # by its index
    ended = [f"row.{column} IN ({_quoted(values)})" for column, values in table.final.items()]
    month = f"CASE WHEN {' OR '.join(ended) or f'row.{by} IS NOT NULL'} THEN amends_month() ELSE 0 END"
    source = f"ROWS FROM ({_document(columns, '')}) WITH ORDINALITY AS written (\n{_wrapped([*columns, 'place'])}\n)"
    values = _wrapped([*(f"{column} = row.{column}" for column in changed), f"month = {month}"])
    return (
        f"UPDATE {table.name} SET\n{values}\n"
        f"FROM (SELECT DISTINCT ON ({key}) * FROM {source} ORDER BY {key}, place DESC) AS row\n"
        f"WHERE {' AND '.join(fits)};"
    )  # fmt: skip


def _live(row: type[Struct], table: Table) -> str:
    assert table.live is not None
    order = ", ".join(("jseq", *table.key))
    where = condition(table.live)
    name = f"{table.name}_open" if any(facet.wins == "final" for facet in table.facets) else table.name
    return f"SELECT\n{_wrapped(columns_of(row))}\nFROM {name}{where and f' WHERE {where}'}\nORDER BY {order};"


def _after(row: type[Struct], table: Table) -> str:
    order = ", ".join((table.after, *table.key))
    return f"SELECT\n{_wrapped(columns_of(row))}\nFROM {table.name} WHERE {table.after} > $1\nORDER BY {order};"


def _found(row: type[Struct], table: Table) -> str:
    (key,) = table.key
    return f"SELECT\n{_wrapped(columns_of(row))}\nFROM {table.name} WHERE {key} = $1;"


def condition(live: Live) -> str:
    """The rows that are live, in SQL; "" for all."""
    if live.is_in or live.not_in:
        return f"{live.column} {'IN' if live.is_in else 'NOT IN'} ({_quoted(live.is_in or live.not_in)})"
    return f"{live.column} IS NULL" if live.column else ""


def _state(table: str, kind: ActorKind) -> Iterator[tuple[str, str, str]]:
    shared = table == "actors"
    own = "id" if shared else f"{kind.name}_id"
    key = ("kind", own) if shared else (own,)
    read = ("kind", "id") if shared else ("id",)
    given = {
        **dict.fromkeys(read, "text"), "state": "text", "version": "bigint", "due_us": "bigint", "body": "text",
        "live": "boolean", "ended_state": "text",
    }  # fmt: skip
    plain = {name: name for name in given if name not in read}
    written = {**dict(zip(key, read, strict=True)), **plain, "body": "body::jsonb", **searched_columns(kind.columns)}
    changed = _wrapped(f"{name} = excluded.{name}" for name in written if name not in key)
    of_kind, place = ("kind = $1 AND ", 2) if shared else ("", 1)
    yield (
        f"state_{table}",
        "Compare-and-set; a row whose version does not fit is left alone, and the count tells.",
        (
            f"INSERT INTO {table} AS known (\n{_wrapped(written)}\n)\n"
            f"SELECT\n{_wrapped(written.values())}\nFROM {_document(given)}\n"
            f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET\n{changed}\nWHERE known.version = excluded.version - 1;"
        ),
    )
    yield (
        f"require_{table}",
        "Of these, the rows that are in one of the states and of the epoch that a turn requires; they stay so.",
        (
            f"SELECT held.{own} AS id\n"
            "FROM json_to_recordset($1::json) AS wanted (kind text, id text, states text, epoch bigint)\n"
            f"JOIN {table} AS held ON {'held.kind = wanted.kind AND ' if shared else ''}"
            f"held.{own} = wanted.id\nWHERE held.{own} = ANY ($2::text[])\n"
            "  AND held.state = ANY (string_to_array(wanted.states, ','))\n"
            "  AND (wanted.epoch IS NULL OR wanted.epoch = "
            f"coalesce((held.body ->> 'epoch')::bigint, {_epoch(kind)}))\nFOR SHARE OF held;"
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
        (f"SELECT {own} AS id, due_us, body::text AS body FROM {table}\nWHERE {of_kind}live ORDER BY {own};"),
    )


def searched_columns(columns: Mapping[str, type]) -> dict[str, str]:
    """The columns of a state table that are made from the body, as SQL."""
    found = {}
    for name, of in columns.items():
        text = f"body::jsonb ->> '{name}'"
        found[name] = f"coalesce(({text})::boolean, false)" if of is bool else text
    return found


def columns_fit(columns: Mapping[str, type], ends: Iterable[str]) -> str:
    """Whether the columns of a state's row say what its state and body say, in SQL."""
    ended = f"state IN ({_quoted(ends)})" if ends else "false"
    fits = {
        **searched_columns(columns), "ended_state": f"CASE WHEN {ended} THEN state END",
        "live": f"NOT {ended} OR body ?| array['timers', 'runs', 'cases', 'owing']",
    }  # fmt: skip
    return " AND ".join(f"{name} IS NOT DISTINCT FROM ({said})" for name, said in fits.items())


def _epoch(kind: ActorKind) -> int:
    """What a body that names no epoch means by that."""
    (field,) = (field for field in msgspec.structs.fields(kind.state_type) if field.name == "epoch")
    return int(field.default)


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def _document(columns: Mapping[str, str], name: str = "row ") -> str:
    """The rows of the one parameter, a JSON array of objects; arrays by column cost the driver four times as much."""
    fields = _wrapped(f"{column} {kind}" for column, kind in columns.items())
    return f"json_to_recordset($1::json) AS {name}(\n{fields}\n)"


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
