"""`trace verify`: compensation rows and spans match one to one (S1), parents are there and cover (S2), errors (S4).

Field by field for S1; for S2 no child begins before its parent, actions contain their children, and what a span points
at is there; for S4 what failed is an error and nothing else is.

    differences = verify(compensations, spans, steps)      # [] is what is wanted

`compensations` are rows of `public_v1.compensation`, `steps` pairs (step_id, state) of tries that have ended. `spans`
come from anywhere: the view, a Jaeger (`await spans_from_jaeger(url, trace_ids)`), a file
(`adapters.otel.otlp_file.spans_of_file(data)`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from adapters.otel.jaeger import NO_SPANS, spans_of_jaeger
from adapters.otel.links import Place, places, pointed_at
from amends.ports.spans import SpanRow
from amends.values import ids
from amends.values.canonical import UNREADABLE
from amends.values.errors import Unavailable

FIELDS = (
    "compensation_id", "recovery_trace_id", "sequence", "timestamp", "compensated_action_ref",
    "compensated_action_type", "compensation_type", "target_ref", "outcome", "duration_ms", "metadata",
)  # fmt: skip
TIMEOUT_S = 30.0


def rebuilt(span: SpanRow) -> dict[str, Any] | None:
    """The compensation that a span carries, or None: every schema field under its own name, without loss."""
    attributes: Mapping[str, Any] = span["attributes"]
    if "compensation.compensation_id" not in attributes:
        return None
    record = {field: attributes.get(f"compensation.{field}") for field in FIELDS}
    if isinstance(record["metadata"], str):
        record["metadata"] = msgspec.json.decode(record["metadata"])
    return record


def verify(
    compensations: Iterable[Mapping[str, Any]],
    spans: Sequence[SpanRow],
    steps: Iterable[tuple[str, str]] = (),
    *,
    elsewhere: Collection[Place] | None = None,
) -> list[str]:
    """What differs, one line each. All spans of a trace must be there; traces may be compared one by one.

    `elsewhere` says which spans of other traces are there too: then what a span points at must be here or there.
    """
    return [
        *_same_ids(spans),
        *_compensations(compensations, spans),
        *_parents(spans),
        *_times(spans),
        *([] if elsewhere is None else _pointers(spans, elsewhere)),
        *_errors(spans, dict(steps)),
    ]


def _same_ids(spans: Sequence[SpanRow]) -> Iterable[str]:
    seen: dict[tuple[str, str], SpanRow] = {}
    for span in spans:
        key = (span["trace_id"], span["span_id"])
        first = seen.setdefault(key, span)
        if _content(first) != _content(span):
            yield f"span {key[1]} of trace {key[0]} comes with different contents"


def _content(span: SpanRow) -> tuple[Any, ...]:
    return (
        span["parent_span_id"], span["name"], span["start_us"], span["end_us"], span["status"], span["attributes"],
    )  # fmt: skip


def _compensations(rows: Iterable[Mapping[str, Any]], spans: Sequence[SpanRow]) -> Iterable[str]:
    found: dict[str, SpanRow] = {}
    for span in spans:
        record = rebuilt(span)
        if record is None:
            continue
        known = found.setdefault(record["compensation_id"], span)
        if known["span_id"] != span["span_id"]:
            yield f"{record['compensation_id']}: two spans, {known['span_id']} and {span['span_id']}"
    for row in rows:
        name = row["compensation_id"]
        if name not in found:
            yield f"{name}: no span"
            continue
        span = found.pop(name)
        record = rebuilt(span) or {}
        for field in FIELDS:
            if record[field] != row[field] or type(record[field]) is not type(row[field]):
                yield f"{name}: {field} is {row[field]!r} in the row and {record[field]!r} in the span"
        if span["trace_id"] != row["recovery_trace_id"]:
            yield f"{name}: its span stands in trace {span['trace_id']}, not {row['recovery_trace_id']}"
    for name in found:
        yield f"{name}: a span without a row"


def _parents(spans: Sequence[SpanRow]) -> Iterable[str]:
    known = {(span["trace_id"], span["span_id"]) for span in spans}
    for span in spans:
        parent = span["parent_span_id"]
        # What a command continues is its caller's: only there may the parent be somebody else's span (S2).
        if parent and span["kind"] != "SERVER" and (span["trace_id"], parent) not in known:
            yield f"span {span['span_id']} ({span['name']}) of trace {span['trace_id']}: no parent {parent}"


def _times(spans: Sequence[SpanRow]) -> Iterable[str]:
    by_place = {(span["trace_id"], span["span_id"]): span for span in spans}
    for span in spans:
        parent = by_place.get((span["trace_id"], span["parent_span_id"] or ""))
        if parent is None or span["kind"] == "SERVER":  # what continues a caller's span goes by another clock
            continue
        what = f"span {span['span_id']} ({span['name']}) of trace {span['trace_id']}"
        early_us = parent["start_us"] - span["start_us"]
        if early_us > 0:
            yield f"{what}: begins {early_us} µs before its parent ({parent['name']})"
        # Others may go on when what they hang below has ended: a command is answered before its steps are done.
        late_us = span["end_us"] - parent["end_us"]
        if late_us > 0 and "recovery.action_id" in parent["attributes"]:
            yield f"{what}: ends {late_us} µs after its action ({parent['name']})"


def _pointers(spans: Sequence[SpanRow], elsewhere: Collection[Place]) -> Iterable[str]:
    known = places(spans)
    for span in spans:
        for trace_id, span_id in pointed_at(span):
            if (trace_id, span_id) not in known and (trace_id, span_id) not in elsewhere:
                what = f"span {span['span_id']} ({span['name']}) of trace {span['trace_id']}"
                yield f"{what}: points at span {span_id} of trace {trace_id}, which is not there"


def _errors(spans: Sequence[SpanRow], steps: Mapping[str, str]) -> Iterable[str]:
    by_span = {ids.span_id("step", step_id): (step_id, state) for step_id, state in steps.items()}
    seen = set()
    for span in spans:
        step = by_span.get(span["span_id"])
        seen.add(span["span_id"])
        failed = _failed(span["attributes"], span["events"]) if step is None else step[1] != "done"
        if failed != (span["status"] == "ERROR"):
            status = span["status"]
            yield f"span {span['span_id']} ({span['name']}): status {status}, failed {failed}"
    for span_id, (step_id, _) in by_span.items():
        if span_id not in seen:
            yield f"{step_id}: no span"


def _failed(attributes: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> bool:
    return (
        any(event["name"] == "failure" for event in events)
        or attributes.get("recovery.outcome") == "failure"
        or attributes.get("recovery.final_outcome") == "failed"
        or attributes.get("amends.reply_code", 0) >= 500
        or attributes.get("amends.outcome", "done") != "done"
    )


async def spans_from_jaeger(url: str, trace_ids: Iterable[str]) -> list[dict[str, Any]]:
    """The spans of these traces as a Jaeger's query API has them; raises `Unavailable`."""
    found: list[dict[str, Any]] = []
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for trace_id in sorted(set(trace_ids)):
                async with session.get(f"{url.rstrip('/')}/api/traces/{trace_id}") as response:
                    if response.status == 404:
                        continue  # what is missing is found by the comparison
                    response.raise_for_status()
                    found += spans_of_jaeger(msgspec.json.decode(await response.read()))
    except (aiohttp.ClientError, OSError, TimeoutError, *UNREADABLE, *NO_SPANS) as error:
        raise Unavailable(f"Jaeger at {url} does not answer as one: {error}") from error
    return found
