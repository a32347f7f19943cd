"""Whatever a release has stored, this one reads: an example of each shape of a message and of a step's arguments."""

from typing import Any

import msgspec
import pytest

from actors.node.kind import NODE
from amends.domain.versions import Message
from supervisors.rental import RENTAL
from tools.stored_shapes import extended, lost, stored

EXAMPLES = [(name, number, given) for name, all_of in stored().items() for number, given in enumerate(all_of, 1)]


@pytest.mark.parametrize(("name", "number", "given"), EXAMPLES, ids=[f"{name} {n}" for name, n, _ in EXAMPLES])
def test_a_stored_shape_is_still_read_whole(name: str, number: int, given: dict[str, Any]) -> None:
    assert lost(name, given) == "", f"example {number} of {name}: declare an upgrade beside it (CONTRIBUTING.md)"


def test_every_shape_that_is_written_has_its_example() -> None:
    assert extended(stored()) == stored(), "./run pages adds what is missing; an example is never changed"


def test_each_step_that_an_adapter_does_says_what_its_arguments_are() -> None:
    assert [step.name for step in RENTAL.steps if step.external and step.args is None] == []


# --- and what is not read is told by its name ------------------------------------------------------------


def with_message(message: type[Message]) -> Any:
    """The rental with a node that takes this one instead of its namesake."""
    handlers = {each: handler for each, handler in NODE.handlers.items() if each.__name__ != message.__name__}
    node = msgspec.structs.replace(NODE, handlers={**handlers, message: lambda s, m, d: None})
    return msgspec.structs.replace(RENTAL, kinds=tuple(node if k is NODE else k for k in RENTAL.kinds))


def renamed(found: dict[str, Any]) -> dict[str, Any]:
    return {"cause": found["reason"]}


class Required(Message, frozen=True):
    cause: str


class Optional(Message, frozen=True):
    cause: str = ""


class Upgraded(Message, frozen=True):
    upgrades = (renamed,)

    cause: str


for each in (Required, Optional, Upgraded):
    each.__name__ = "Suspicion"


def test_a_field_that_is_renamed_without_an_upgrade_is_seen() -> None:
    name, before = "message node Suspicion", {"reason": "text"}
    assert "cause" in lost(name, before, with_message(Required))
    assert lost(name, before, with_message(Optional)) == "it loses reason"
    assert lost(name, before, with_message(Upgraded)) == ""
    # and the new shape becomes an example of its own, beside the old one
    assert extended({name: [before]}, with_message(Upgraded))[name] == [before, {"cause": "text", "v": 2}]


def test_a_message_that_is_gone_is_seen() -> None:
    assert lost("message node Gone", {}) == "no message node Gone is declared any more"
