"""Whatever a page of Jaeger's asks for: a search within bounds, or a refusal that names the parameter."""

from typing import Any, Final

from hypothesis import strategies as st

from adapters.http.jaeger_query import KINDS, MAX_TAGS, MAX_TRACES, TraceSearch, search_of_v1, search_of_v3, span_kind
from amends.values.errors import Rejected
from tests.hostile.values import given, tried, words

V1: Final[dict[str, tuple[str, ...]]] = {
    "service": ("amends",), "operation": ("ssh.probe",), "start": ("1",), "end": ("2000000",), "limit": ("5",),
    "lookback": ("1h", "custom", "999999999w"), "minDuration": ("1.5ms", "1h30m", ".5s"), "maxDuration": ("2h",),
    "tags": ('{"a": "b"}', '{"span.kind": "CLIENT"}', '{"a": 1.5, "b": true}', "{" + '"a": {' * 4000),
    "tag": ("a:b", "error:true", "a:b:c"), "traceID": ("a" * 32, "A1"), "raw": ("true",), "colour": ("blue",),
}  # fmt: skip
V3: Final[dict[str, tuple[str, ...]]] = {
    "query.serviceName": ("amends",), "query.service_name": ("amends",), "query.operation_name": ("x",),
    "query.start_time_min": ("2026-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"),
    "query.startTimeMax": ("2026-01-01", "20260101T000000.123456789Z"), "query.duration_min": ("1s",),
    "query.attributes": ('{"a": "b"}', '{"a": null}', "[]"), "query.num_traces": ("1000",), "query.searchDepth": ("1",),
    "query.raw_traces": ("1",), "start": ("1",), "query.": ("",), "query": ("",),
}  # fmt: skip


def pairs(known: dict[str, tuple[str, ...]]) -> st.SearchStrategy[list[tuple[str, str]]]:
    good = st.sampled_from([(name, value) for name, values in known.items() for value in values])
    odd = st.tuples(st.sampled_from(sorted(known)) | words, words)
    return st.lists(good | good | odd, max_size=6)


def judged(search: Any, query: list[tuple[str, str]]) -> None:
    found, error = tried(Rejected, search, query)
    if error is not None:
        assert (error.code, error.http) == ("invalid_request", 400)
        assert error.details["field"] in error.message
        return
    assert isinstance(found, TraceSearch)
    assert 1 <= found.limit <= MAX_TRACES
    assert len(found.tags) <= MAX_TAGS
    numbers = [found.since_us, found.until_us, found.min_us or 0, found.max_us or 0]
    assert all(0 <= number < 2**63 for number in numbers), "the database's whole numbers"
    for text in (found.service, found.operation or "", *found.tags, *found.tags.values()):
        assert "\0" not in text
        text.encode()
    assert all(len(trace_id) == 32 for trace_id in found.trace_ids)


@given(pairs(V1))
def test_what_version_one_asks_is_a_search_or_refused_by_its_parameter(query: list[tuple[str, str]]) -> None:
    judged(search_of_v1, query)


@given(pairs(V3))
def test_what_version_two_asks_is_a_search_or_refused_by_its_parameter(query: list[tuple[str, str]]) -> None:
    judged(search_of_v3, query)


@given(st.sampled_from([*KINDS, "SPAN_KIND_CLIENT", "Server", ""]) | words)
def test_a_span_kind_is_one_of_them(text: str) -> None:
    found, error = tried(Rejected, span_kind, text)
    assert error.details["field"] == "spanKind" if error is not None else found in (None, *KINDS)
