"""From the tables of verbs to an argument parser, and from what was typed to a request's data object."""

import argparse
import json
import re
from collections.abc import Callable, Container, Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from adapters.cli.verbs import BOOLEANS, INTEGERS, LOCAL, Field, LocalVerb, Verb

EPILOG: Final = """\
A verb that changes something is sent with a random idempotency key. After a time-out send it again with the
--key it printed: what was done already is not done twice. Exit status: 0 done, 1 refused, 2 usage, 3 unreachable.
"""
NAMED: Final = frozenset(("account_id", "node_id"))  # people chose these: their order is no order of time
GROUP_HELP: Final = {
    "audit": "the audit log's chain", "policy": "the credit policy", "trace": "spans and records", "retry": "try again",
}  # fmt: skip
MOST_FILE = 32_768  # bytes


class Usage(Exception):
    """What was typed cannot be understood; the message says why."""


def parser(local: Container[str], verbs: Sequence[Verb], typed: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The whole command line, help included; of what was typed already, as far as it is needed to understand that.

    `local`: the words of the local verbs that were handed in.
    """
    top = argparse.ArgumentParser(
        prog="amends", description="Rent machines, and make amends when they fail.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    top.add_argument("--version", action="version", version=f"amends {version('amends')}")
    top.add_argument("--json", action="store_true", help="the reply's data as JSON")
    top.set_defaults(verbs=verbs)
    first_words = top.add_subparsers(metavar="VERB", required=True)
    groups: dict[str, Any] = {}
    shared = _shared()
    asked = {verb.words for verb in verbs}
    chosen: list[Verb | LocalVerb] = [verb for verb in LOCAL if verb.words in local or verb.words not in asked]
    chosen += [verb for verb in verbs if verb.words not in local]
    word = next((word for word in typed if not word.startswith("-")), "")  # no option before the verb takes a value
    meant = [verb for verb in chosen if verb.words.partition(" ")[0] == word]
    for verb in meant or chosen:  # all of them take longer to make than anything else that a verb does here
        first, _, second = verb.words.partition(" ")
        parents = [shared] if isinstance(verb, Verb) else []
        if second:
            if first not in groups:
                words = GROUP_HELP.get(first, f"{first}: list, show and more")
                groups[first] = first_words.add_parser(first, help=words).add_subparsers(metavar="VERB", required=True)
            made = groups[first].add_parser(second, help=verb.help, description=verb.help, parents=parents)
        else:
            made = first_words.add_parser(first, help=verb.help, description=verb.help, parents=parents)
        _add(made, verb)
    return top


def _shared() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    group = shared.add_argument_group("connection and output")
    group.add_argument("--nats", metavar="URL", help="default: AMENDS_NATS_SERVERS, then what the runtime wrote")
    group.add_argument("--token", help="better: AMENDS_TOKEN; default: what the local runtime wrote")
    group.add_argument("--state-dir", type=Path, help="of the local runtime; default ./.amends")
    group.add_argument("--timeout", type=float, default=35.0, metavar="S", help="seconds to wait for the answer")
    # Before the verb or behind it: what was said before must not be undone by a default.
    group.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="the reply's data as JSON")
    return shared


def _add(made: argparse.ArgumentParser, verb: Verb | LocalVerb) -> None:
    made.set_defaults(verb=verb)
    for field in verb.fields:
        _add_field(made, field)
    if isinstance(verb, LocalVerb):
        return
    if verb.show == "rows":
        made.add_argument(
            "--where",
            action="append",
            default=[],
            metavar="COLUMN=VALUE",
            help="only these rows, or with != all others; null for none, JSON for JSON columns",
        )
        made.add_argument("--since", metavar="TIME", help="only what is as young as that")
        made.add_argument("--oldest", action="store_true", help="the oldest first; else the newest")
        made.add_argument(
            "--sort", metavar="COLUMN", help="what is shown, in the order of this column; -COLUMN backwards"
        )
        made.add_argument("--limit", type=int, metavar="N", help="at most 500")
        made.add_argument("--cursor", help="go on where the last page ended")
        made.add_argument("--all", action="store_true", help="all pages")
    if not verb.changes:
        made.add_argument("--watch", type=float, nargs="?", const=2.0, metavar="S", help="again every so many seconds")
    if verb.changes:
        made.add_argument("--key", help="idempotency key; default: a random one")
        made.add_argument("--expected-version", type=int, metavar="N", help="refuse if the entity has changed")


def _add_field(made: argparse.ArgumentParser, field: Field) -> None:
    if not field.option:
        lack: dict[str, Any] = {"nargs": "?"} if field.may_lack else {}
        made.add_argument(field.name, help=field.help, metavar=field.name.upper(), **lack)
        return
    options: dict[str, Any] = {"dest": field.name, "help": field.help, "required": field.required}
    if field.kind == "flag":
        if field.name == "json":  # also said before the verb, which no default may undo
            options["default"] = argparse.SUPPRESS
        made.add_argument(field.option, action="store_true", **options)
        return
    options["metavar"] = field.option.removeprefix("--").upper().replace("-", "_")
    if field.kind in ("labels", "names"):
        if field.kind == "labels":
            options["metavar"] = "NAME=VALUE"
        made.add_argument(field.option, action="append", **options)
        return
    if field.kind == "paths":
        made.add_argument(field.option, action="append", type=Path, default=[], **options)
        return
    kinds: dict[str, Any] = {"int": int, "path": Path}
    made.add_argument(field.option, type=kinds.get(field.kind, str), default=field.default, **options)


def data_of(verb: Verb, typed: argparse.Namespace) -> dict[str, Any]:
    """The data object of a verb's request. Raises `Usage`."""
    data: dict[str, Any] = {}
    for field in verb.fields:
        value = getattr(typed, field.name)
        if value is None or (field.kind == "flag" and not value):
            continue
        *path, last = field.name.split(".")
        place = data
        for part in path:
            place = place.setdefault(part, {})
        place[last] = _value(field, value)
    return data


def _value(field: Field, value: Any) -> Any:
    if field.kind == "labels":
        return dict(_pair(one) for one in value)
    if field.kind in ("line", "json") and value.startswith("@"):
        value = _content(field, value[1:]).strip()
    if field.kind == "json":
        return _parsed(field, value)
    if field.kind == "file":
        text = _content(field, value)
        if len(text.encode()) > MOST_FILE:
            raise Usage(f"{value}: a file of at most {MOST_FILE} bytes can be sent")
        return text
    if field.kind == "time":
        return microseconds(value)
    return value


def _parsed(field: Field, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Usage(f"{field.option or field.name} is not JSON: {error}") from error


def _content(field: Field, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"{field.option or field.name}: {error}") from error


def filters_of(typed: argparse.Namespace) -> dict[str, Any]:
    """The data object of a list: filters by column, limit, cursor. Raises `Usage`."""
    equal = [text for text in typed.where if not text.partition("=")[0].endswith("!")]
    data = {column: typed_value(column, text) for column, text in _pairs(equal)}
    if not typed.oldest and typed.verb.columns[0] not in NAMED:
        data["order"] = "newest"
    if typed.limit is not None:
        data["limit"] = typed.limit
    if typed.cursor is not None:
        data["cursor"] = typed.cursor
    return data


def is_wanted(typed: argparse.Namespace) -> Callable[[dict[str, Any]], bool]:
    """What a list leaves out here: rows that equal a `!=`. Raises `Usage`."""
    unequal = [text for text in typed.where if text.partition("=")[0].endswith("!")]
    others = [(name[:-1], typed_value(name[:-1], value)) for name, value in _pairs(unequal)]
    return lambda row: all(row.get(name) != value for name, value in others)


def is_older(typed: argparse.Namespace, columns: Iterable[str]) -> Callable[[dict[str, Any]], bool]:
    """Whether a row is from before `--since`; what has not begun yet is not. Raises `Usage`, also when called."""
    since_us = microseconds(typed.since) if typed.since else 0
    begins = [name for name in columns if name.endswith("_us") and name not in ("ended_us", "stopped_us")]

    def older(row: dict[str, Any]) -> bool:
        if not since_us:
            return False
        name = next((each for each in (*begins[:1], "started_at", "timestamp") if each in row), None)
        if name is None:
            raise Usage("these rows have no time of their own: --since cannot be asked for")
        return row[name] is not None and microseconds(str(row[name])) < since_us

    return older


def typed_value(column: str, text: str) -> Any:
    """A filter's value as its column has it; `null` is none, `{…}` and `[…]` are JSON. Raises `Usage`."""
    if text == "null":
        return None
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Usage(f"--where {column}: no JSON: {error}") from None
    if column in BOOLEANS:
        if text not in ("true", "false"):
            raise Usage(f"--where {column}: true or false, not {text!r}")
        return text == "true"
    if column in INTEGERS or column.endswith(("_us", "_ms", "_minor", "_per_hour")):
        try:
            return int(text)
        except ValueError:
            raise Usage(f"--where {column}: a whole number, not {text!r}") from None
    return text


def microseconds(text: str) -> int:
    """A time as microseconds since the Unix epoch; ISO 8601 without an offset is UTC. Raises `Usage`."""
    if re.fullmatch(r"[0-9]{1,19}", text):
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Usage(f"{text!r} is neither microseconds nor a time such as 2026-01-31T12:00:00Z") from None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _pairs(texts: Iterable[str]) -> list[tuple[str, str]]:
    return [_pair(text) for text in texts]


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise Usage(f"{text!r} must have the form name=value")
    return name, value
