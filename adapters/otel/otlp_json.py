"""Spans as Jaeger 2 answers them for traces: OTLP in JSON.

    await otlp_json(rows)     → {"result": {"resourceSpans": […]}}

OTLP's JSON writes ids in hex and 64-bit numbers as text; protobuf's own mapping would write ids in base64.
"""

import base64
from collections.abc import Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from adapters.otel.encoding import SLICE, encode_rows
from amends.ports.spans import SpanRow

_IDS = ("traceId", "spanId", "parentSpanId")


async def otlp_json(rows: Sequence[SpanRow]) -> dict[str, Any]:
    """The answer of `/api/v3/traces` and `/api/v3/traces/<id>` for these spans; made in slices."""
    groups: list[dict[str, Any]] = []
    for start in range(0, len(rows), SLICE):
        sent = ExportTraceServiceRequest.FromString(await encode_rows(rows[start : start + SLICE]))
        groups += MessageToDict(sent, use_integers_for_enums=True).get("resourceSpans", ())
    for group in groups:
        for scope in group["scopeSpans"]:
            for span in scope["spans"]:
                for holder in (span, *span.get("links", ())):
                    _hex_ids(holder)
    return {"result": {"resourceSpans": groups}}


def _hex_ids(holder: dict[str, Any]) -> None:
    for name in _IDS:
        if name in holder:
            holder[name] = base64.b64decode(holder[name]).hex()
