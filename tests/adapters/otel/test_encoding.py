"""Our own bytes of spans against those of the OpenTelemetry SDK: the same, whatever stands in a row."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.otel.encoding import SCHEMA_URL, encode_rows
from adapters.postgres.spans import SpanReader
from tests.adapters.otel import sdk
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import lost_cleanup, whole_story

TEXT = st.text(st.characters(codec="utf-8"), max_size=300)
VALUES = st.one_of(
    TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False),
    st.lists(TEXT, max_size=3), st.just("x" * 5000),
)  # fmt: skip
ATTRIBUTES = st.dictionaries(TEXT.filter(bool), VALUES, max_size=5)
TIMES = st.integers(0, 2**53)
TRACE_IDS = st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}")
SPAN_IDS = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")
ROWS = st.fixed_dictionaries({
    "trace_id": TRACE_IDS, "span_id": SPAN_IDS, "parent_span_id": st.none() | SPAN_IDS, "name": TEXT,
    "kind": st.sampled_from(["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]), "start_us": TIMES,
    "end_us": TIMES, "status": st.sampled_from(["UNSET", "OK", "ERROR"]), "status_message": TEXT,
    "attributes": ATTRIBUTES,
    "events": st.lists(st.fixed_dictionaries({"name": TEXT.filter(bool), "time_us": TIMES, "attributes": ATTRIBUTES}),
                       max_size=2),
    "links": st.lists(st.fixed_dictionaries({"trace_id": TRACE_IDS, "span_id": SPAN_IDS}), max_size=2),
    "resource": st.none() | st.just({"service.name": "a", "service.version": "1.2"})
    | st.just({"service.version": "1.2", "amends.epoch": 7, "service.name": "b"}),
})  # fmt: skip


@given(st.lists(ROWS, min_size=1, max_size=4))
async def test_any_rows_are_the_bytes_that_the_sdk_writes(rows: list[dict[str, Any]]) -> None:
    assert await encode_rows(rows) == sdk.encoded(rows)


async def test_every_span_of_a_long_story_is_what_the_sdk_writes(database: Database) -> None:
    await whole_story(database.book)
    await lost_cleanup(database.book)
    rows, _ = await SpanReader(database.read).after(0, 1_000_000)
    assert len(rows) > 40
    for row in rows:
        assert await encode_rows([row]) == sdk.encoded([row]), row["name"]


def test_the_conventions_are_named_as_the_sdk_names_them() -> None:
    assert SCHEMA_URL == sdk.SCHEMA_URL


@pytest.mark.parametrize("count", [0, 1, 257, 600])
async def test_however_many_they_are_each_goes_out_once(count: int) -> None:
    row: dict[str, Any] = {
        "parent_span_id": None, "name": "n", "kind": "CLIENT", "start_us": 1, "end_us": 2, "status": "UNSET",
        "status_message": "", "attributes": {}, "events": [], "links": [], "resource": None,
    }  # fmt: skip
    rows = [{**row, "trace_id": "a" * 32, "span_id": f"{number:016x}"} for number in range(count)]
    sent = sdk.spans_of(await encode_rows(rows))
    assert sent == [f"{number:016x}" for number in range(count)]
