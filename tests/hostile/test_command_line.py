"""Whatever is typed: a request's data, a page of help, or a refusal that says what is wrong with which word."""

import contextlib
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from hypothesis import example
from hypothesis import strategies as st

from adapters.cli import arguments
from adapters.cli.arguments import Usage, data_of, filters_of, is_older, is_wanted, microseconds, typed_value
from adapters.cli.verbs import LOCAL, Verb, all_verbs
from amends.domain.domain import requests_of
from amends.values.errors import Rejected
from supervisors.boot.console import Desk
from supervisors.rental import RENTAL
from tests.hostile.values import given, tried, words

VERBS: Final = tuple(all_verbs(requests_of((RENTAL,)).values()))
PARSER: Final = arguments.parser({verb.words for verb in LOCAL}, VERBS)
OPTIONS: Final = sorted({field.option for verb in VERBS for field in verb.fields if field.option})
SAID: Final = (
    "n1", "acme", "a=b", "state=ready", "state!=ready", "labels={", "at_us=x", "at_us=9" + "9" * 5000, "dirty=maybe",
    "=", "@", "@/dev/null/x", "{}", "[" * 5000, '{"a": 1}', "2026-01-01", "--", "-1", "0", "1e5", "-h", "é=ü",
    "alloc_1",
)  # fmt: skip
more = (
    "--where",
    "--since",
    "--limit",
    "--cursor",
    "--json",
    "--key",
    "--expected-version",
    "--sort",
    "--watch",
    "--all",
)
words_typed = st.lists(
    st.sampled_from(SAID) | st.sampled_from(OPTIONS) | st.sampled_from(more) | words.filter(lambda w: "\0" not in w),
    max_size=6,
)  # fmt: skip
lines = st.builds(lambda verb, rest: [*verb.words.split(), *rest], st.sampled_from(VERBS), words_typed)


def asked(line: list[str]) -> Any:
    """What is sent for a line; what a list leaves out of its rows is looked at as well."""
    typed = PARSER.parse_args(line)
    if not isinstance(typed.verb, Verb):
        return None
    if typed.verb.show != "rows":
        return data_of(typed.verb, typed)
    row = {"created_us": 1, "timestamp": "2026-01-01", "state": "ready"}
    is_wanted(typed)(row)
    is_older(typed, typed.verb.columns)(row)
    return filters_of(typed)


@given(lines | words_typed)
@example(["case", "list", "--where", "evidence=" + "[" * 100_000])
@example(["case", "list", "--since", "9" * 5000])
@example(["account", "statement", "acme", "--since", "9" * 5000])
def test_a_line_is_understood_or_refused_with_a_reason(line: list[str]) -> None:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        found, error = tried((Usage, SystemExit), asked, line)
    if isinstance(error, SystemExit):
        assert error.code in (0, 2)
        assert said.getvalue()
    elif error is not None:
        assert str(error)
    else:
        json.dumps(found).encode()


@given(st.datetimes(), st.sampled_from((None, 0, 23 * 60 + 59, -(23 * 60 + 59))))
def test_a_time_that_we_can_write_we_can_read(at: datetime, minutes: int | None) -> None:

    at = at if minutes is None else at.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    since = at.replace(tzinfo=at.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    assert microseconds(at.isoformat()) == since // timedelta(microseconds=1)


@given(words | st.text("0123456789-T:.Z+٣", max_size=30))
@example("9" * 5000)
@example("٣")
def test_a_time_is_read_or_refused(text: str) -> None:
    found, error = tried(Usage, microseconds, text)
    assert (found is None) != (error is None)


@given(st.sampled_from(("at_us", "dirty", "labels", "state", "amount_minor")), words | st.sampled_from(SAID))
@example("labels", "[" * 100_000)
@example("at_us", "9" * 5000)
def test_a_filters_value_is_typed_as_its_column_or_refused_by_it(column: str, text: str) -> None:
    found, error = tried(Usage, typed_value, column, text)
    if error is not None:
        assert column in str(error)
        return
    json.dumps(found)


# --- the same verbs as forms of the console --------------------------------------------------------------

NONE: Any = None
DESK: Final = Desk(NONE, (), VERBS, NONE, silent=NONE, fleet=NONE, now=NONE, samples=NONE, turns=NONE)
FIELDS: Final = {verb.subject: verb.fields for verb in VERBS if verb.changes}
fills = words | st.sampled_from(SAID) | st.sampled_from(("yes", "1", "a=b, c=d", "n1, n2", "2026-01-01T00:00:00Z"))
forms = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda subject: st.tuples(st.just(subject), st.fixed_dictionaries({}, optional={
        field.name: fills for field in FIELDS[subject]}))
)  # fmt: skip


@given(forms)
@example(("ops.outbox.republish", {"since_us": "9" * 5000, "reason": "x"}))
def test_a_form_is_a_request_or_refused_by_its_field(given_: tuple[str, Mapping[str, str]]) -> None:
    subject, given_fields = given_
    form = DESK.form(subject, {})
    assert form is not None
    data, error = tried(Rejected, DESK.data, form, given_fields)
    if error is not None:
        assert error.details["field"] in {field.name for field in FIELDS[subject]}
        return
    json.dumps(data)


@given(words, st.dictionaries(words, words, max_size=3))
def test_a_form_of_an_unknown_command_is_none(subject: str, known: Mapping[str, str]) -> None:
    assert DESK.form(subject, known) is None
