"""What a domain lets others ask. A command is declared once, on the type of its message: `command` of a `Request`.

The service's subject, who may send it, the schema of its request and reply, the command line's verb, the examples of
the reference pages: all are read off that declaration. No transport here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

from amends.values.errors import BadDomain

Kind = Literal["text", "int", "time", "labels", "flag", "line", "names"]
Json = dict[str, Any]


class Asked(Struct, frozen=True):
    """Beside the type of a request's field: what a person reads of it, and how it is typed on a command line.

    Without `option` it is positional. `kind` where the type does not say it: `line` is a text or `@FILE`, `time`
    microseconds or ISO 8601. `default` is the command line's own, for a field that the API asks for. `example` stands
    in the reference; None leaves the field out of it.
    """

    help: str
    option: str = ""
    kind: Kind | Literal[""] = ""
    default: int | None = None
    example: Any = None


class Command(Struct, frozen=True, kw_only=True):
    """What its message is to those who send it. The actor that gets it is of kind `of`.

    Exactly one of `by` (the field that names the actor), `one` (the only actor concerned), `mints` (the prefix of the
    id of the actor that it makes) and `found` (how it is looked up) says which actor that is. `role`: caller, operator;
    `trusted`: of callers only those who speak for every account. `account`: the field that names the account
    concerned. `checks`: what the composition looks at before, in this order. `waits`: for what is added to the reply.
    `words`: the command line's, if the subject does not say them.

    The reply has the row of `row` (default: of the actor) under its name, and beside it what `answer` says, by name as
    JSON Schema; with `row` "" only that. In the example the row has `then`, and `beside` stands beside it.
    """

    subject: str
    help: str
    of: str = ""
    by: str = ""
    one: str = ""
    mints: str = ""
    found: str = ""
    role: Literal["caller", "operator"] = "caller"
    trusted: bool = False
    account: str = ""
    checks: tuple[str, ...] = ()
    waits: str = ""
    words: str = ""
    row: str | None = None
    answer: Mapping[str, Any] = {}
    example: Mapping[str, Any] = {}
    then: Mapping[str, Any] = {}
    beside: Mapping[str, Any] = {}

    @property
    def shown(self) -> str:
        """The entity whose row the reply has, "" for none."""
        return self.of if self.row is None else self.row

    @property
    def typed(self) -> str:
        """The command line's words."""
        return self.words or self.subject.partition(".")[2].replace(".", " ").replace("_", "-")


class Request(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request's data object; unknown fields are refused."""

    command: ClassVar[Command | None] = None


class Field(Struct, frozen=True):
    """A field of a request as a person meets it; `name` with dots for nesting, `optional` by the API."""

    name: str
    asked: Asked
    kind: Kind
    optional: bool


# `$(?!\n)` is the end of the text in Python and in ECMA-262, which JSON Schema prescribes; `$` alone lets a newline by.
Name = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$(?!\n)", description="lower-case letters, digits, dashes")
]
NotificationId = Annotated[
    str, Meta(pattern=r"^ntf_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)"), Asked("the notification", example="{notification}")
]
OutboxId = Annotated[
    str, Meta(pattern=r"^evt_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)"), Asked("the outbox row", example="{event}")
]
CaseId = Annotated[str, Meta(pattern=r"^case_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)"), Asked("the case", example="{case}")]
Reason = Annotated[
    str, Meta(min_length=1, max_length=1000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$(?!\n)"),
    Asked("why; it stands in the audit with your name", "--reason"),
]  # fmt: skip
ShortText = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
Instant = Annotated[
    int, Meta(ge=0, le=2**62, description="microseconds since the Unix epoch, UTC"),
    Asked("from this time on", "--since", "time"),
]  # fmt: skip


@cache
def fields_of(request: type[Request]) -> Sequence[Field]:
    """The fields of a request, an object's own instead of itself. Raises `BadDomain` for one that says nothing."""
    return tuple(_fields(request))


def _fields(request: type[Request], inside: str = "", *, may_miss: bool = False) -> Iterator[Field]:
    hints = get_type_hints(request, include_extras=True)
    for field in msgspec.structs.fields(request):
        optional = may_miss or not field.required
        base, said = _parts(hints[field.name])
        if isinstance(base, type) and issubclass(base, Request):
            yield from _fields(base, f"{inside}{field.name}.", may_miss=optional)
            continue
        if said is None:
            raise BadDomain(f"{request.__name__}.{field.name} does not say what it is: annotate it with Asked")
        yield Field(inside + field.name, said, said.kind or _kind(base), optional)


def _parts(hint: Any) -> tuple[Any, Asked | None]:
    """The type of a field without what is said beside it and without None; and the last `Asked` of it."""
    said: Asked | None = None
    while True:
        if hasattr(hint, "__metadata__"):
            said = next((one for one in reversed(hint.__metadata__) if said is None and isinstance(one, Asked)), said)
            hint = hint.__origin__
        elif type(None) in get_args(hint):
            (hint,) = (one for one in get_args(hint) if one is not type(None))
        else:
            return hint, said


def _kind(base: Any) -> Kind:
    named: dict[Any, Kind] = {int: "int", bool: "flag"}
    made: dict[Any, Kind] = {dict: "labels", list: "names"}
    return named.get(base) or made.get(getattr(base, "__origin__", None), "text")


def example_of(request: type[Request], names: Mapping[str, str]) -> Json:
    """The data object of the reference's example. `names`: what stands for {…} in an example's text."""
    assert request.command is not None
    data: Json = {}
    for field in fields_of(request):
        value = request.command.example.get(field.name, field.asked.example)
        if value is None or (field.optional and field.name not in request.command.example):
            continue
        *path, last = field.name.split(".")
        place = data
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value.format_map(names) if isinstance(value, str) else value
    return data


def commanded(requests: Iterable[type]) -> dict[str, type[Request]]:
    """Those of the types that are commands, by subject. Raises `BadDomain` where two have one subject."""
    found: dict[str, type[Request]] = {}
    for request in requests:
        if not issubclass(request, Request) or request.command is None:
            continue
        if found.setdefault(request.command.subject, request) is not request:
            raise BadDomain(f"the command {request.command.subject} is declared twice")
    return found
