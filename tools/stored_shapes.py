"""An example of each shape in which messages and arguments of steps have ever been stored (`./run pages`).

`tests/house/stored_shapes.json` gets an example of a shape that it has not; none is ever changed or taken out, since
rows of that shape may lie in somebody's database. `tests/house/test_stored_shapes.py` reads them all.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, fields

from amends.domain.domain import Domain
from amends.domain.versions import Message, Upgrade, newest
from supervisors.rental import RENTAL

FILE = Path(__file__).parents[1] / "tests" / "house" / "stored_shapes.json"
VALUES: dict[Any, Any] = {str: "text", int: 1, bool: True, float: 1.5, Any: "anything"}
Shapes = dict[str, list[dict[str, Any]]]


def declared(domain: Domain) -> Iterator[tuple[str, type[Struct], Sequence[Upgrade]]]:
    """(name, shape, upgrades) of all messages that are stored, and of the arguments of all steps."""
    for kind in domain.kinds:
        for handled in kind.handlers:
            if issubclass(handled, Message):
                yield f"message {kind.name} {handled.__name__}", handled, handled.upgrades
    for step in domain.steps:
        if step.args is not None:
            yield f"step {step.name}", step.args, step.upgrades


def example(shape: Any) -> Any:
    """A value of that type as JSON, with every field there is."""
    if isinstance(shape, type) and issubclass(shape, Struct):
        return {field.encode_name: example(field.type) for field in fields(shape)}
    origin, of = get_origin(shape), get_args(shape)
    if origin in (Union, UnionType):
        return example(next(each for each in of if each is not type(None)))
    if origin is dict:
        return {example(of[0]): example(of[1])}
    if origin is tuple and of[-1] is not Ellipsis:
        return [example(each) for each in of]
    if origin in (list, tuple, frozenset, set):
        return [example(of[0])]
    if origin is not None:  # Annotated
        return example(of[0])
    return VALUES[shape]


def extended(known: Shapes, domain: Domain = RENTAL) -> Shapes:
    """What is known, and an example of each shape that is not."""
    found = {name: list(examples) for name, examples in known.items()}
    for name, shape, upgrades in declared(domain):
        made = example(shape) | ({"v": len(upgrades) + 1} if upgrades else {})
        if made not in found.setdefault(name, []):
            found[name].append(made)
    return found


def lost(name: str, given: dict[str, Any], domain: Domain = RENTAL) -> str:
    """Why this release cannot read that stored example whole, "" if it can."""
    ways = {each: (shape, upgrades) for each, shape, upgrades in declared(domain)}
    if name not in ways:
        return f"no {name} is declared any more"
    shape, upgrades = ways[name]
    try:
        made = newest(msgspec.json.encode(given), upgrades)
        read = asdict(msgspec.convert(made, shape))
    except msgspec.MsgspecError as error:
        return str(error)
    missing = made.keys() - read.keys()
    return f"it loses {', '.join(sorted(missing))}" if missing else ""


def stored() -> Shapes:
    """The file as it is."""
    found: Shapes = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return found


def text(shapes: Shapes) -> str:
    """The file's text."""
    return json.dumps(shapes, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(extended(stored())), encoding="utf-8")
