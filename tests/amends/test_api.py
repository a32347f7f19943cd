"""Commands as they are declared (`amends.domain.api`): what is read off a declaration, and what is refused."""

from typing import Annotated, ClassVar

import msgspec
import pytest
from msgspec import Meta

from amends.domain.api import Asked, Command, Field, Name, Reason, Request, commanded, example_of, fields_of
from amends.domain.checks import check_domains
from amends.domain.domain import requests_of
from amends.values.errors import BadDomain
from examples.switch_port import SWITCH
from supervisors.rental import RENTAL


class Place(Request, frozen=True):
    """Where it is."""

    room: Annotated[Name, Asked("the room", "--room", example="b-12")]
    shelf: Annotated[int, Asked("the shelf", "--shelf", default=1, example=1)]


class Move(Request, frozen=True):
    """ops.thing.put_away"""

    command: ClassVar[Command] = Command(
        subject="ops.thing.put_away", help="put it away", of="thing", by="thing_id", role="operator",
        example={"reason": "it is in the way", "force": True},
    )  # fmt: skip
    thing_id: Annotated[Name, Asked("the thing", example="{thing}")]
    reason: Reason
    place: Place | None = None
    force: Annotated[bool, Asked("although it is in use", "--force")] = False
    note: Annotated[Annotated[str, Meta(max_length=9)] | None, Asked("a note", "--note", "line")] = None


class Mute(Request, frozen=True):
    """A field of it says nothing."""

    command: ClassVar[Command] = Command(subject="ops.thing.mute", help="", of="switch", by="who", mints="thing")
    thing_id: Name


def test_what_a_person_meets_is_read_off_the_fields() -> None:
    assert [(field.name, field.asked.option, field.kind, field.optional) for field in fields_of(Move)] == [
        ("thing_id", "", "text", False),
        ("reason", "--reason", "text", False),
        ("place.room", "--room", "text", True),
        ("place.shelf", "--shelf", "int", True),
        ("force", "--force", "flag", True),
        ("note", "--note", "line", True),
    ]
    assert all(isinstance(field, Field) for field in fields_of(Place))


def test_the_words_follow_from_the_subject_and_the_example_from_the_fields() -> None:
    assert Move.command.typed == "thing put-away"
    assert example_of(Move, {"thing": "lamp"}) == {"thing_id": "lamp", "reason": "it is in the way", "force": True}


def test_one_subject_is_one_command() -> None:
    class Again(Move, frozen=True):
        """Forgets to declare itself anew."""

    with pytest.raises(BadDomain, match=r"ops\.thing\.put_away is declared twice"):
        commanded([Move, Again])


def test_a_declaration_that_does_not_hold_together_is_refused_at_the_start() -> None:
    domain = msgspec.structs.replace(SWITCH, requests=(Mute,))
    with pytest.raises(BadDomain) as refused:
        check_domains((domain,), lambda name: True)
    for fault in (
        "says its actor by by and mints",
        "is for the role caller: ops.* is for operators",
        "names the field 'who'",
        "Mute.thing_id does not say what it is",
    ):
        assert fault in str(refused.value)


def test_every_command_of_the_rental_has_an_example_and_a_line_of_help() -> None:
    known = ("allocation", "notification", "event", "case", "host_key", "customer_key", "meter", "attachment")
    names: dict[str, str] = dict.fromkeys(known, "x")
    for subject, request in requests_of((RENTAL,)).items():
        assert request.command is not None
        assert request.command.help, subject
        assert set(example_of(request, names)) >= {
            name for name in request.__struct_encode_fields__ if name in ("reason", request.command.by)
        }
