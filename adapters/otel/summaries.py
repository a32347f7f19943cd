"""Spans as Jaeger 2 answers them for a search: one line for each trace.

summaries(rows)           → {"summaries": [{"traceId", "rootServiceName", …}]}
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from amends.ports.spans import SpanRow


def summaries(rows: Sequence[SpanRow]) -> dict[str, Any]:
    """The answer of `/api/v3/trace-summaries` for the traces of these spans, in the order of their first."""
    traces: dict[str, list[SpanRow]] = {}
    for row in rows:
        traces.setdefault(row["trace_id"], []).append(row)
    return {"summaries": [_summary(trace_id, spans) for trace_id, spans in traces.items()]}


def _summary(trace_id: str, spans: Sequence[SpanRow]) -> dict[str, Any]:
    known = {span["span_id"] for span in spans}
    orphans = [span for span in spans if span["parent_span_id"] and span["parent_span_id"] not in known]
    # Where a caller began the trace, what it sent is the nearest to a root.
    roots = [span for span in spans if not span["parent_span_id"]] or orphans or list(spans)
    root = min(roots, key=lambda span: span["start_us"])
    counts = Counter(_service(span) for span in spans)
    errors = Counter(_service(span) for span in spans if span["status"] == "ERROR")
    return {
        "traceId": trace_id,
        "rootServiceName": _service(root),
        "rootOperationName": root["name"],
        "minStartTimeUnixNano": str(min(span["start_us"] for span in spans) * 1000),
        "maxEndTimeUnixNano": str(max(span["end_us"] for span in spans) * 1000),
        "spanCount": len(spans),
        "errorSpanCount": errors.total(),
        "orphanSpanCount": len(orphans),
        "services": [
            {"name": name, "spanCount": count, "errorSpanCount": errors[name]} for name, count in sorted(counts.items())
        ],
    }


def _service(span: SpanRow) -> str:
    name: str = (span["resource"] or {}).get("service.name", "amends")
    return name
