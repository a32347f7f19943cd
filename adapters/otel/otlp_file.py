"""Spans out of a file: OTLP as JSON (one document, or one a line), OTLP as protobuf, or Jaeger's JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from adapters.otel.jaeger import NO_SPANS, spans_of_jaeger
from amends.values.canonical import UNREADABLE
from amends.values.errors import BadConfiguration

_KINDS = ("INTERNAL", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUS = ("UNSET", "OK", "ERROR")


def spans_of_file(data: bytes) -> list[dict[str, Any]]:
    """The spans as rows; raises `BadConfiguration` when the file is none of the three."""
    if data.lstrip()[:1] == b"{":
        try:
            documents = [msgspec.json.decode(line, type=dict[str, Any]) for line in _documents(data)]
        except UNREADABLE as error:
            raise BadConfiguration(f"the file is no JSON: {error}") from None
        found = []
        try:
            for document in documents:
                found += spans_of_jaeger(document) if "data" in document else spans_of_otlp_json(document)
        except NO_SPANS as error:
            raise BadConfiguration(f"the file has no spans as they are written: {error!r}") from None
        return found
    try:
        return spans_of_otlp(ExportTraceServiceRequest.FromString(data))
    except (DecodeError, IndexError):
        raise BadConfiguration("the file is neither OTLP (JSON, protobuf) nor Jaeger's JSON") from None


def _documents(data: bytes) -> Iterable[bytes]:
    """The whole file if it is one document, else its lines."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except UNREADABLE:
        return [line for line in data.splitlines() if line.strip()]
    return [data]


def spans_of_otlp(request: ExportTraceServiceRequest) -> list[dict[str, Any]]:
    """The spans of an OTLP request as rows: the columns of `public_v1.span` that OTLP keeps."""
    return [
        _row(span, _pairs(group.resource))
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _row(span: Any, resource: dict[str, Any]) -> dict[str, Any]:
    return {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex() or None,
        "name": span.name,
        "kind": _KINDS[span.kind],
        "start_us": span.start_time_unix_nano // 1000,
        "end_us": span.end_time_unix_nano // 1000,
        "status": _STATUS[span.status.code],
        "status_message": span.status.message,
        "attributes": _pairs(span),
        "events": [
            {"name": one.name, "time_us": one.time_unix_nano // 1000, "attributes": _pairs(one)} for one in span.events
        ],
        "links": [{"trace_id": one.trace_id.hex(), "span_id": one.span_id.hex()} for one in span.links],
        "resource": resource,
    }


def _pairs(holder: Any) -> dict[str, Any]:
    return {one.key: _any(one.value) for one in holder.attributes}


def _any(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def spans_of_otlp_json(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The spans of an OTLP/JSON document as rows."""
    rows: list[dict[str, Any]] = []
    for group in document.get("resourceSpans") or ():
        resource = _attributes(group.get("resource") or {})
        for scope in group.get("scopeSpans") or ():
            rows.extend(_json_row(span, resource) for span in scope.get("spans") or ())
    return rows


def _json_row(span: Mapping[str, Any], resource: dict[str, Any]) -> dict[str, Any]:
    status = span.get("status") or {}
    return {
        "trace_id": span["traceId"].lower(),
        "span_id": span["spanId"].lower(),
        "parent_span_id": (span.get("parentSpanId") or "").lower() or None,
        "name": span["name"],
        "kind": _enum(span.get("kind", 0), _KINDS),
        "start_us": int(span["startTimeUnixNano"]) // 1000,
        "end_us": int(span["endTimeUnixNano"]) // 1000,
        "status": _enum(status.get("code", 0), _STATUS),
        "status_message": status.get("message", ""),
        "attributes": _attributes(span),
        "events": [
            {
                "name": one["name"],
                "time_us": int(one["timeUnixNano"]) // 1000,
                "attributes": _attributes(one),
            }
            for one in span.get("events") or ()
        ],
        "links": [
            {"trace_id": one["traceId"].lower(), "span_id": one["spanId"].lower()} for one in span.get("links") or ()
        ],
        "resource": resource,
    }


def _enum(value: Any, names: tuple[str, ...]) -> str:
    """An enumeration by number, or by name as some writers have it (`SPAN_KIND_CLIENT`)."""
    return names[value] if isinstance(value, int) else str(value).rpartition("_")[2]


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    return {one["key"]: _json_value(one.get("value") or {}) for one in holder.get("attributes") or ()}


def _json_value(value: Mapping[str, Any]) -> Any:
    if "intValue" in value:
        return int(value["intValue"])
    return next(iter(value.values()), None)
