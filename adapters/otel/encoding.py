"""Span rows as the OTLP protobuf that the SDK's own encoder writes.

A row is a mapping with the columns of `public_v1.span`. The same rows give the same bytes.
"""

import asyncio
from collections.abc import Iterator, Sequence

import msgspec
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from amends.ports.spans import SpanRow

SLICE = 64  # spans encoded before others get the loop: about 2 ms

SCHEMA_URL = Schemas.V1_44_0.value  # the conventions that the view's attributes follow
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_STATUS = {"UNSET": StatusCode.UNSET, "OK": StatusCode.OK, "ERROR": StatusCode.ERROR}


async def encode_rows(rows: Sequence[SpanRow]) -> bytes:
    """An `ExportTraceServiceRequest`, made in slices: protobuf messages laid end to end are one message."""
    parts = []
    for spans in slices(rows):
        parts.append(encode_spans(spans).SerializeToString(deterministic=True))
        await asyncio.sleep(0)
    return b"".join(parts)


def slices(rows: Sequence[SpanRow]) -> Iterator[list[ReadableSpan]]:
    """The SDK's spans of the rows, so many at a time that others get the loop between them."""
    resources: dict[bytes, Resource] = {}
    for start in range(0, len(rows), SLICE):
        yield [readable(row, resources) for row in rows[start : start + SLICE]]


def readable(row: SpanRow, resources: dict[bytes, Resource] | None = None) -> ReadableSpan:
    """The SDK's span of a row; `resources` keeps one object per resource, which groups the encoding."""
    described = row["resource"] or {"service.name": "amends"}
    known = {} if resources is None else resources
    key = msgspec.json.encode(described, order="deterministic")
    resource = known.setdefault(key, Resource(described))
    parent = row["parent_span_id"]
    remote = row["kind"] == "SERVER"  # only a command continues, or links to, what somebody else began
    above = _context(row["trace_id"], parent, is_remote=remote) if parent else None
    code = _STATUS[row["status"]]
    return ReadableSpan(
        name=row["name"],
        context=_context(row["trace_id"], row["span_id"]),
        parent=above,
        resource=resource,
        attributes=row["attributes"],
        events=[Event(one["name"], one["attributes"], one["time_us"] * 1000) for one in row["events"]],
        links=[Link(_context(one["trace_id"], one["span_id"], is_remote=remote)) for one in row["links"]],
        kind=SpanKind[row["kind"]],
        status=Status(code, (row["status_message"] or None) if code is StatusCode.ERROR else None),
        start_time=row["start_us"] * 1000,
        end_time=row["end_us"] * 1000,
        instrumentation_scope=InstrumentationScope("amends", described.get("service.version"), SCHEMA_URL),
    )


def _context(trace_id: str, span_id: str, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=is_remote, trace_flags=_SAMPLED)
