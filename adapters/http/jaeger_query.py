"""What Jaeger's interfaces ask for, read strictly: a filter that is not understood is refused, none is ignored.

    search_of_v1(query)     # /api/traces: start and end in microseconds, tags as JSON or tag=key:value
    search_of_v3(query)     # /api/v3/traces: query.startTimeMin in RFC 3339, query.attributes as JSON

All raise `Rejected("invalid_request", …, field=…)`.
"""

import re
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from amends.values.errors import Rejected

MAX_TRACES, DEFAULT_TRACES = 1000, 20
MAX_TAGS, MAX_TEXT = 20, 1024
KINDS = ("internal", "server", "client", "producer", "consumer")
_TRACE_ID = re.compile(r"[0-9a-fA-F]{1,32}")
_LOOK_BACK_US = {"ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6, "w": 604800 * 10**6}
_LOOK_BACK = re.compile(r"(\d{1,9})(ms|s|m|h|d|w)")
# Durations as Go writes them: 1.2ms, 1h30m.
_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_PART = re.compile(r"(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_V1 = frozenset(
    ("service", "operation", "start", "end", "lookback", "limit", "minDuration", "maxDuration", "tags", "tag",
     "traceID", "prettyPrint", "raw")
)  # fmt: skip
_V3 = frozenset(
    ("serviceName", "operationName", "startTimeMin", "startTimeMax", "durationMin", "durationMax", "attributes",
     "searchDepth", "numTraces", "rawTraces")
)  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Pairs = Iterable[tuple[str, str]]  # a query's parameters as they came


class TraceSearch(Struct, frozen=True):
    """Traces with a span of this description; times and durations in microseconds, None where nothing is asked.

    `tags` are texts, as everything is compared. With `trace_ids` only these traces are looked at.
    """

    service: str
    limit: int
    since_us: int
    until_us: int
    operation: str | None
    tags: dict[str, str]
    min_us: int | None = None
    max_us: int | None = None
    trace_ids: tuple[str, ...] = ()


def search_of_v1(query: Pairs) -> TraceSearch:
    """What `/api/traces` asks for. `tag` and `traceID` may be repeated."""
    query = list(query)
    asked = only(query, _V1, repeated=("tag", "traceID"))
    until = _number(asked, "end", time.time_ns() // 1000)
    since = _number(asked, "start", max(0, until - _look_back_us(asked)))
    tags = _tags_of_json(asked.get("tags", ""), "tags")
    for pair in (value for name, value in query if name == "tag" and value):
        key, colon, value = pair.partition(":")
        if not key or not colon:
            raise _refused("tag", "must be key:value")
        _add_tag(tags, "tag", key, value)
    trace_ids = tuple(_trace_id(text) for name, text in query if name == "traceID" and text)
    return _checked(TraceSearch(
        asked.get("service", ""), max(_limit(asked, "limit"), len(trace_ids)), since, until, asked.get("operation"),
        tags, _duration_us(asked, "minDuration"), _duration_us(asked, "maxDuration"), trace_ids,
    ))  # fmt: skip


def search_of_v3(query: Pairs) -> TraceSearch:
    """What `/api/v3/traces` and `/api/v3/trace-summaries` ask for; names may be written `snake_case` too."""
    plain: dict[str, str] = {}
    for name, value in query:
        prefix, dot, field = name.partition(".")
        field = re.sub(r"_([a-z])", lambda found: found[1].upper(), field)
        if prefix != "query" or not dot or field not in _V3:
            raise _refused(name, "is not known here")
        if field in plain:
            raise _refused(name, "stands twice")
        plain[field] = value
    plain = {field: value for field, value in plain.items() if value}
    limit = "numTraces" if "numTraces" in plain else "searchDepth"
    now = time.time_ns() // 1000
    return _checked(TraceSearch(
        plain.get("serviceName", ""), _limit(plain, limit), _instant_us(plain, "startTimeMin", 0),
        _instant_us(plain, "startTimeMax", now), plain.get("operationName"),
        _tags_of_json(plain.get("attributes", ""), "query.attributes"), _duration_us(plain, "durationMin"),
        _duration_us(plain, "durationMax"),
    ))  # fmt: skip


def only(query: Pairs, known: Collection[str], repeated: Collection[str] = ()) -> dict[str, str]:
    """The parameters that are set; refused where one is not known, or stands twice and may not."""
    found: dict[str, str] = {}
    for name, value in query:
        if name not in known:
            raise _refused(name, "is not known here")
        if name in found and name not in repeated:
            raise _refused(name, "stands twice")
        found[name] = value
    return {name: value for name, value in found.items() if value}


def span_kind(text: str) -> str | None:
    """A span kind in small letters, None for all."""
    kind = text.lower().removeprefix("span_kind_")
    if kind and kind not in KINDS:
        raise _refused("spanKind", f"must be one of {', '.join(KINDS)}")
    return kind or None


def _checked(search: TraceSearch) -> TraceSearch:
    if search.min_us is not None and search.max_us is not None and search.min_us > search.max_us:
        raise _refused("minDuration", "is longer than maxDuration")
    if len(search.trace_ids) > MAX_TRACES:
        raise _refused("traceID", f"may stand {MAX_TRACES} times at most")
    _check_text("service", search.service)
    _check_text("operation", search.operation or "")
    return search


def _refused(field: str, why: str) -> Rejected:
    return Rejected("invalid_request", f"the parameter {field} {why}", field=field)


def _number(asked: Mapping[str, str], field: str, default: int) -> int:
    text = asked.get(field) or str(default)
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise _refused(field, "must be a whole number")
    return int(text)


def _limit(asked: Mapping[str, str], field: str) -> int:
    limit = _number(asked, field, DEFAULT_TRACES)
    if not 1 <= limit <= MAX_TRACES:
        raise _refused(field, f"must be from 1 to {MAX_TRACES}")
    return limit


def _look_back_us(asked: Mapping[str, str]) -> int:
    """How far back to look where `start` does not say it; `custom` says that `start` does."""
    text = asked.get("lookback", "custom")
    found = _LOOK_BACK.fullmatch(text)
    if found is None and text != "custom":
        raise _refused("lookback", "must be a span of time such as 2h or 7d")
    return int(found[1]) * _LOOK_BACK_US[found[2]] if found else 1 << 62


def _duration_us(asked: Mapping[str, str], field: str) -> int | None:
    text = asked.get(field, "").strip()
    if not text:
        return None
    if not _DURATION.fullmatch(text):
        raise _refused(field, "must be a duration such as 1.2ms, 100us or 1h30m")
    parts = [_nanoseconds(number, unit) for number, unit in _DURATION_PART.findall(text)]
    return min(sum(parts) // 1000, (1 << 62) - 1)


def _nanoseconds(number: str, unit: str) -> int:
    """Whole and part apart: no float between a person's filter and the microseconds of a span."""
    whole, _, part = number.partition(".")
    return int(whole or 0) * _UNITS_NS[unit] + int(part.ljust(9, "0")) * _UNITS_NS[unit] // 10**9


def _instant_us(asked: Mapping[str, str], field: str, default: int) -> int:
    text = asked.get(field)
    if text is None:
        return default
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise _refused(f"query.{field}", "must be a time as RFC 3339 has it") from None
    if at.tzinfo is None:
        raise _refused(f"query.{field}", "must name its time zone")
    return max(0, (at - _EPOCH) // timedelta(microseconds=1))


def _tags_of_json(text: str, field: str) -> dict[str, str]:
    try:
        found = msgspec.json.decode(text or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise _refused(field, "must be a JSON object") from None
    tags: dict[str, str] = {}
    for key, value in found.items():
        if not isinstance(value, str | int | float | bool):
            raise _refused(field, "must have texts, numbers or truth values only")
        _add_tag(tags, field, key, value if isinstance(value, str) else msgspec.json.encode(value).decode())
    return tags


def _add_tag(tags: dict[str, str], field: str, key: str, value: str) -> None:
    """As the records write it: kinds in small letters, status codes in capitals."""
    value = {"span.kind": value.lower(), "otel.status_code": value.upper()}.get(key, value)
    _check_text(field, key)
    _check_text(field, value)
    if tags.setdefault(key, value) != value:
        raise _refused(field, f"asks for two values of {key}, which no span has")
    if len(tags) > MAX_TAGS:
        raise _refused(field, f"may name {MAX_TAGS} tags at most")


def _check_text(field: str, text: str) -> None:
    if len(text) > MAX_TEXT or "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _refused(field, f"must be a text of at most {MAX_TEXT} characters")


def _trace_id(text: str) -> str:
    if _TRACE_ID.fullmatch(text) is None:
        raise _refused("traceID", "must be up to 32 hex digits")
    return text.lower().rjust(32, "0")
