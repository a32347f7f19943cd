"""Span rows as the OpenTelemetry SDK writes them: what our own encoding is held to."""

from collections.abc import Sequence

import msgspec
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from amends.ports.spans import SpanRow

SCHEMA_URL = Schemas.V1_44_0.value
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_STATUS = {"UNSET": StatusCode.UNSET, "OK": StatusCode.OK, "ERROR": StatusCode.ERROR}


def encoded(rows: Sequence[SpanRow]) -> bytes:
    """An `ExportTraceServiceRequest`."""
    resources: dict[bytes, Resource] = {}
    found: bytes = encode_spans([readable(row, resources) for row in rows]).SerializeToString(deterministic=True)
    return found


def readable(row: SpanRow, resources: dict[bytes, Resource]) -> ReadableSpan:
    """The SDK's span of a row; `resources` keeps one object per resource, which groups the encoding."""
    described = row["resource"] or {"service.name": "amends"}
    key = msgspec.json.encode(described, order="deterministic")
    resource = resources.setdefault(key, Resource(described))
    parent = row["parent_span_id"]
    remote = row["kind"] == "SERVER"
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


def spans_of(request: bytes) -> list[str]:
    """The ids of its spans, in their order."""
    read = ExportTraceServiceRequest.FromString(request)
    return [span.span_id.hex() for group in read.resource_spans for scope in group.scope_spans for span in scope.spans]
