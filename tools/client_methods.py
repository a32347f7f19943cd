"""The methods of the client for tools/client.py: one for each subject, in a group for each entity."""

import re
from collections.abc import Iterable, Mapping

from msgspec import inspect

from adapters.postgres.reading import ENTITIES
from amends.domain.api import fields_of
from amends.runtime.requests import Endpoint
from tools.client_types import (
    STATES,
    Lines,
    answer_name,
    answers,
    asked,
    camel,
    command_of,
    head,
    methods,
    shown,
    words,
)
from tools.client_words import NOTES, summary, wrapped


def method(endpoint: Endpoint) -> Lines:
    """One method."""
    known = inspect.type_info(endpoint.request)
    assert isinstance(known, inspect.StructType)
    command, entity = command_of(endpoint), shown(endpoint)
    fields = sorted(known.fields, key=lambda one: not one.required)
    typed = [f"{one.encode_name}: {asked(one.type)}{'' if one.required else ' | None = None'}" for one in fields]
    last = "**options: Unpack[CommandOptions]" if command else "deadline_s: float | None = None"
    result = f"Handle[{camel(entity)}, {camel(entity)}State]" if entity in STATES else camel(entity)
    result = result if entity else answer_name(endpoint)
    star = ["*"] if typed or not command else []
    verb = endpoint.subject.rpartition(".")[2]
    yield f"    async def {verb}({', '.join(('self', *star, *typed, last))}) -> {result}:"
    helps = {one.name: one.asked.help for one in fields_of(endpoint.request)} if command else {}
    note = NOTES.get(endpoint.subject, "")
    yield f'        """{wrapped(summary(endpoint, command), helps, note)}"""'
    names = ", ".join(f"{one.encode_name}={one.encode_name}" for one in fields)
    data = f"given({names})" if names else "{}"
    if command is None:
        long = ", long=True" if endpoint.subject.startswith("ops.") else ""
        yield f"        answer = await self._calls.ask({endpoint.subject!r}, {data}, deadline_s{long})"
        yield f"        return msgspec.convert(answer, {result})"
        return
    yield f"        reply = await self._calls.command({endpoint.subject!r}, {data}, options)"
    if entity in STATES:
        yield f"        return handle(self._calls, {entity.upper()}, reply)"
    elif entity:
        yield f"        return {entity.upper()}.row_of((reply.data or {{}})[{entity!r}])"
    else:
        yield f"        return msgspec.convert(reply.data, {result})"


def group(name: str, base: str, init: Iterable[str], chosen: Iterable[Endpoint], says: str) -> Lines:
    """A class with the methods of some subjects."""
    yield f"class {name}{f'({base})' if base else ''}:"
    yield f'    """{says}"""'
    yield "    def __init__(self, calls: Calls) -> None:"
    yield from (f"        {line}" for line in init)
    for endpoint in chosen:
        yield from method(endpoint)


def _grouped(*families: str) -> dict[str, list[Endpoint]]:
    found: dict[str, list[Endpoint]] = {}
    for endpoint in methods():
        family, name, _ = endpoint.subject.split(".")
        if family in families:
            found.setdefault(name, []).append(endpoint)
    return found


def _file(says: str, text: str) -> Lines:
    """The head of a file of methods, with what the text needs, and the text."""
    found = words(text)
    offered = {
        "collections.abc": ("Mapping", "Sequence"), "typing": ("Any", "Literal", "Unpack"),
        "amends_client.api.answers": tuple(re.findall(r"^class (\w+)", "\n".join(answers()), re.MULTILINE)),
        "amends_client.api.kinds": (*map(str.upper, ENTITIES), *(f"{camel(kind)}State" for kind in STATES)),
        "amends_client.api.rows": tuple(map(camel, ENTITIES)),
        "amends_client.calls": ("Calls", "CommandOptions", "given"),
        "amends_client.following": ("Handle", "Lives", "handle"), "amends_client.reading": ("Rows",),
    }  # fmt: skip
    needed = {module: sorted(found & set(names)) for module, names in offered.items()}
    imports = [f"from {module} import {', '.join(names)}" for module, names in needed.items() if names]
    yield from head(says, "import msgspec" if "msgspec.convert" in text else "", *imports, text)


def callers() -> Lines:
    """Commands and questions of callers, and the rows of everything."""
    lines, attributes, own = [], [], _grouped("cmd", "qry")
    for entity in ENTITIES:
        kind = f"{camel(entity)}, {camel(entity)}State" if entity in STATES else camel(entity)
        base = f"{'Lives' if entity in STATES else 'Rows'}[{kind}]"
        attributes.append(f"self.{entity} = {base}(calls, {entity.upper()})")
        if entity in own:
            attributes[-1] = f"self.{entity} = {camel(entity)}Calls(calls)"
            init = [f"super().__init__(calls, {entity.upper()})"]
            says = f"Rows of `{entity}`, and what callers may do or ask about them."
            lines += list(group(f"{camel(entity)}Calls", base, init, own.pop(entity), says))
    assert not own, "a subject of callers belongs to no entity"
    says = "All that callers may ask: a group for each entity, with `get`, `list` and its commands."
    text = "\n".join([*lines, *group("Callers", "", attributes, (), says)])
    return _file("Commands and questions of callers (cmd, qry).", text)


def _of_operators(*, asking: bool) -> dict[str, list[Endpoint]]:
    """Their groups: those in which something is asked, or those that only change."""
    return {
        name: chosen for name, chosen in _grouped("ops").items()
        if any(endpoint.answer is not None for endpoint in chosen) == asking
    }  # fmt: skip


def _operators(groups: Mapping[str, list[Endpoint]]) -> Lines:
    for name, chosen in groups.items():
        of_cases = name == "case"  # what `get` and `list` ask for is `qry.ops_case`, the same rows
        init = ["super().__init__(calls, OPS_CASE)"] if of_cases else ["self._calls = calls"]
        yield from group(f"{camel(name)}Ops", "Rows[OpsCase]" if of_cases else "", init, chosen, f"`ops.{name}`.")


def inspection() -> Lines:
    """What operators look at and settle."""
    return _file(
        "Questions of operators, and the cases that they settle.", "\n".join(_operators(_of_operators(asking=True)))
    )


def operators() -> Lines:
    """Commands of operators, and all their groups."""
    attributes = [f"self.{name} = {camel(name)}Ops(calls)" for name in _grouped("ops")]
    says = "All that operators may ask, by what it is about."
    lines = [*_operators(_of_operators(asking=False)), *group("Operators", "", attributes, (), says)]
    names = ", ".join(f"{camel(name)}Ops" for name in _of_operators(asking=True))
    text = "\n".join([f"from amends_client.api.inspection import {names}", *lines])
    return _file("Commands of operators (ops).", text)
