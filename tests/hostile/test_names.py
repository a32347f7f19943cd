"""Ids, names, references and cursors: what we make is read again, and nothing else is taken for one."""

from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from actors.fields import AllocationId, MountPath
from adapters.postgres.filters import FILTERS, check_filters
from adapters.postgres.reading import _checked, _cursor, _order, _position
from amends.domain.api import Name
from amends.values import ids
from amends.values.errors import Rejected
from amends.values.text import printable
from tests.hostile.values import given, tried, values, words

prefixes = st.sampled_from(("alloc", "node", "x", "step"))
random = st.binary(min_size=10, max_size=10)
made = st.builds(ids.type_id, prefixes, st.integers(0, 2**60), random)
near = st.builds(lambda whole, at, more: whole[: at % len(whole)] + more + whole[at % len(whole) :], made,
                 st.integers(0, 40), st.text(max_size=1))  # fmt: skip


@given(near | words, prefixes)
def test_only_what_is_an_id_is_taken_for_one(text: str, prefix: str) -> None:
    if ids.is_type_id(text, prefix):
        assert text == f"{prefix}_{ids.suffix(text)}"
        assert len(ids.suffix(text)) == 26
        assert text.isascii()
    by_request = _converts(text, AllocationId)
    assert by_request == ids.is_type_id(text, "alloc")


def _converts(value: object, of: Any) -> bool:
    try:
        msgspec.convert(value, of)
    except msgspec.ValidationError:
        return False
    return True


@given(words | st.from_regex(r"[a-z0-9-]{1,70}\n?", fullmatch=True))
def test_a_name_is_the_same_to_all(text: str) -> None:
    good = ids.is_name(text)
    assert _converts(text, Name) == good
    if good:
        assert not set(text) & set("./*> \n:")
        assert ids.split_ref(f"node:{text}/user:x") == ("node", text)


@given(words | near)
def test_whatever_a_reference_is_it_has_two_parts(text: str) -> None:
    kind, identifier = ids.split_ref(text)
    assert f"{kind}:{identifier}" in (text.partition("/")[0], text.partition("/")[0] + ":")
    assert len(ids.span_id(text)) == 16


@given(words, st.integers(0, 5000))
def test_what_is_shown_is_printable_and_bounded(text: str, most: int) -> None:
    found = printable(text, most)
    assert found.isprintable()
    assert len(found) <= most


# --- questions -------------------------------------------------------------------------------------------

ENTITIES: Final = sorted(FILTERS)
cursors = st.builds(_cursor, st.sampled_from(ENTITIES), words.map(lambda text: text.encode(errors="replace").decode()))


@given(st.sampled_from(ENTITIES), cursors | values | words | st.from_regex(r"[A-Za-z0-9_=-]{0,40}", fullmatch=True))
def test_a_cursor_is_one_of_this_list_or_refused(entity: str, cursor: Any) -> None:
    last, error = tried(Rejected, _position, entity, cursor)
    if error is not None:
        assert (error.code, error.details["field"]) == ("invalid_request", "cursor")
        return
    assert "\0" not in last
    last.encode()
    assert _position(entity, _cursor(entity, last)) == last


@given(values)
def test_an_order_is_one_of_two(wanted: Any) -> None:
    found, error = tried(Rejected, _order, wanted)
    assert (error is None) == (wanted in ("oldest", "newest"))
    assert found[1] in ("ASC", "DESC") if error is None else error.details["field"] == "order"


COLUMNS: Final = {
    "account_id": "text",
    "state": "text",
    "at_us": "bigint",
    "dirty": "boolean",
    "labels": "jsonb",
    "n": "integer",
}


@given(st.sampled_from(ENTITIES), st.dictionaries(st.sampled_from(sorted(COLUMNS)) | words, values, max_size=3))
def test_a_filter_is_one_that_an_index_finds_or_refused_by_its_field(entity: str, filters: dict[str, Any]) -> None:
    _, error = tried(Rejected, check_filters, entity, COLUMNS, filters)
    if error is not None:
        assert error.details["field"] in filters
        return
    assert filters.keys() <= COLUMNS.keys()


@given(st.sampled_from(sorted(COLUMNS.values())), values)
def test_a_filters_value_is_of_its_columns_type_or_refused_by_its_field(kind: str, wanted: Any) -> None:
    found, error = tried(Rejected, _checked, "field", kind, wanted)
    if error is not None:
        assert (error.code, error.details["field"]) == ("invalid_request", "field")
        return
    assert kind == "jsonb" or isinstance(found, {"text": str, "boolean": bool}.get(kind, int))
    if kind != "jsonb" and isinstance(found, str):
        found.encode()
        assert "\0" not in found


@given(words)
def test_a_mount_path_that_a_schema_takes_can_be_sent(text: str) -> None:
    if _converts(text, MountPath):
        assert msgspec.json.decode(msgspec.json.encode(text)) == text
