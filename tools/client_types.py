"""The types of the client for tools/client.py: rows, kinds with their automata, answers, objects in requests."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from msgspec import inspect

from adapters.postgres.reading import ENTITIES
from amends.domain.api import Command, Request
from amends.runtime.requests import Endpoint
from supervisors.api.replies import data_schema, row
from supervisors.rental import RENTAL
from tools.asyncapi import endpoints, title
from tools.views import column_type, views

WRITTEN: Final = "Written by `python -m tools.client`: change the tables that it reads, not this file."
TYPES: Final = {"bigint": "int", "boolean": "bool", "text": "str", "json": "Any"}
TYPED_JSON: Final = {"access": "Access", "labels": "dict[str, str]", "quarantine_reasons": "list[str]"}
PLAIN: Final = {"integer": "int", "string": "str", "boolean": "bool", "array": "list[Any]", "object": "dict[str, Any]"}
COLUMNS: Final = {view: {name: column_type(name) for name in names} for view, names in views().items()}
STATES: Final = {
    kind.name: {
        state: [to for source, to in kind.transitions if source == state]
        for state in dict.fromkeys(state for pair in kind.transitions for state in pair if state)
    }
    for kind in RENTAL.kinds
    if kind.events
}
BY_HAND: Final = frozenset(("ingress.stripe",))  # takes a body as it is
ACCESS: Final = """
class Access(Struct, frozen=True):
    \"\"\"How a customer gets in; `host_key` is the line to expect.\"\"\"

    user: str
    host: str
    port: int
    host_key: str
    fingerprint: str
"""
Lines = Iterator[str]


def camel(name: str) -> str:
    """`ops_case` → `OpsCase`."""
    return title(name)


def head(says: str, *imports: str) -> Lines:
    """The beginning of a file."""
    yield f'"""{says}\n\n{WRITTEN}\n"""'
    yield from imports


# --- which subjects have a method -----------------------------------------------------------------------


def methods() -> list[Endpoint]:
    """Every subject that has a method of its own: `get` and `list` stand in `reading.py`, as do those of cases."""
    named = [one for one in endpoints() if one.subject not in BY_HAND and isinstance(one.request, type)]
    return [one for one in named if one.subject.rpartition(".")[2] not in ("get", "list")]


def command_of(endpoint: Endpoint) -> Command | None:
    """How it was declared, None for a question."""
    request = endpoint.request
    return request.command if issubclass(request, Request) and endpoint.answer is None else None


def shown(endpoint: Endpoint) -> str:
    """The entity whose row the reply to a command has, "" for none."""
    command = command_of(endpoint)
    return command.shown if command else ""


# --- rows, kinds -------------------------------------------------------------------------------------


def rows() -> Lines:
    """A struct for each entity that can be asked for."""
    yield from head("The rows of every entity, as the reference's views have them; times (`_us`) are microseconds.",
                    "from typing import Any", "from msgspec import Struct", ACCESS)  # fmt: skip
    for entity, key in ENTITIES.items():
        yield f"class {camel(entity)}(Struct, frozen=True):"
        yield f'    """A row of `{entity}`. What other turns write is null in the reply to a command."""'
        columns = COLUMNS[entity]
        for name in dict.fromkeys((key, *(one for one in ("state",) if one in columns), *columns)):
            kind = TYPED_JSON.get(name, TYPES[columns[name]])
            sure = name in (key, "state")
            yield f"    {name}: {kind}" if sure else f"    {name}: {kind}{'' if kind == 'Any' else ' | None'} = None"


def kinds() -> Lines:
    """The kind of each entity, and the states of those that have events."""
    names = ", ".join(sorted(map(camel, ENTITIES)))
    yield from head("Kinds of entities: their rows, the column of their id, and which state may follow which.",
                    "from typing import Final, Literal",
                    f"from amends_client.api.rows import {names}",
                    "from amends_client.reading import Kind")  # fmt: skip
    for entity, key in ENTITIES.items():
        leads = {state: tuple(after) for state, after in STATES.get(entity, {}).items()}
        if leads:
            yield f"{camel(entity)}State = Literal[{', '.join(map(repr, leads))}]"
        yield f"{entity.upper()}: Final = Kind({entity!r}, {camel(entity)}, {key!r}{f', {leads!r}' if leads else ''})"


# --- answers, and objects in requests ----------------------------------------------------------------


def asked(kind: Any) -> str:  # noqa: PLR0911 - a type for each kind of field
    """The type of a field of a request."""
    match kind:
        case inspect.Metadata():
            return asked(kind.type)
        case inspect.UnionType():
            return " | ".join(dict.fromkeys(asked(one) for one in kind.types if not isinstance(one, inspect.NoneType)))
        case inspect.BoolType():
            return "bool"
        case inspect.IntType():
            return "int"
        case inspect.StrType():
            return "str"
        case inspect.LiteralType():
            return f"Literal[{', '.join(map(repr, kind.values))}]"
        case inspect.ListType():
            return f"Sequence[{asked(kind.item_type)}]"
        case inspect.DictType():
            return f"Mapping[{asked(kind.key_type)}, {asked(kind.value_type)}]"
        case inspect.AnyType():
            return "Any"
        case inspect.StructType():
            return kind.cls.__name__
        case _:
            raise TypeError(f"a field of {kind!r} has no type yet: add it to tools/client.py")


def told(schema: Mapping[str, Any]) -> str:
    """The type of a part of an answer."""
    for entity in ENTITIES:
        if schema == row(COLUMNS[entity]):
            return camel(entity)
    if "enum" in schema:
        return f"Literal[{', '.join(map(repr, schema['enum']))}]"
    if schema.get("type") == "array" and "items" in schema:
        return f"list[{told(schema['items'])}]"
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return " | ".join("None" if name == "null" else PLAIN[name] for name in names)


def structs(request: type) -> Iterator[inspect.StructType]:
    """The objects in a request."""
    known = inspect.type_info(request)
    assert isinstance(known, inspect.StructType)
    for field in known.fields:
        for one in field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,):
            if isinstance(one, inspect.StructType):
                yield one


def answered(subject: str) -> str:
    """The subject by which its answer is named: what those of one entity that answer the same have in common."""
    return _answered().get(subject, subject)


@cache
def _answered() -> dict[str, str]:
    alike: dict[tuple[str, str], list[str]] = {}
    for endpoint in methods():
        schema = json.dumps(data_schema(endpoint, COLUMNS), sort_keys=True)
        alike.setdefault((endpoint.subject.rpartition(".")[0], schema), []).append(endpoint.subject)
    return {subject: entity for (entity, _), subjects in alike.items() if len(subjects) > 1 for subject in subjects}


def answer_name(endpoint: Endpoint) -> str:
    """`ops.audit.verify` → `AuditVerifyAnswer`; `ops.whatif.node_loss` and its like → `WhatifAnswer`."""
    return f"{title(answered(endpoint.subject).partition('.')[2])}Answer"


def answers() -> Lines:
    """A struct for each answer that is no row, and for the objects that requests have."""
    made: dict[str, list[str]] = {}
    for endpoint in methods():
        for one in structs(endpoint.request):
            fields = [(each.encode_name, asked(each.type), each.required) for each in one.fields]
            typed = [
                f"    {name}: {kind}" if sure else f"    {name}: {kind} | None = None" for name, kind, sure in fields
            ]
            says = f'    """An object in a request: {one.cls.__name__}."""'
            made[one.cls.__name__] = [
                f"class {one.cls.__name__}(Struct, frozen=True, omit_defaults=True):",
                says,
                *typed,
            ]
        if shown(endpoint):
            continue
        schema, of = data_schema(endpoint, COLUMNS), answered(endpoint.subject)
        named = of if of == endpoint.subject else f"{of}.…"
        lines = [
            f"class {answer_name(endpoint)}(Struct, frozen=True):",
            f'    """What `{named}` answers."""',
        ]
        for name, part in sorted(schema["properties"].items(), key=lambda one: one[0] not in schema["required"]):
            kind = told(part)
            sure = name in schema["required"]
            lines.append(f"    {name}: {kind}" if sure else f"    {name}: {kind.removesuffix(' | None')} | None = None")
        made[answer_name(endpoint)] = lines
    text = "\n".join(line for lines in made.values() for line in lines)
    used = ", ".join(sorted(camel(entity) for entity in ENTITIES if f"{camel(entity)}" in words(text)))
    yield from head("What questions and commands answer that is no row, and the objects that requests have.",
                    "from typing import Any, Literal", "from msgspec import Struct",
                    f"from amends_client.api.rows import {used}", text)  # fmt: skip


def words(text: str) -> set[str]:
    """The names in a text."""
    return set(re.findall(r"\w+", text))
