"""Spans as Jaeger's JSON: what its query API answers and what its UI opens as a file.

    jaeger_json(rows)          → {"data": [{"traceID", "spans", "processes", "warnings"}], "total", …}
    spans_of_jaeger(document)  → rows again: the columns of `public_v1.span` that Jaeger keeps

Times and durations are microseconds. A parent is a CHILD_OF reference, a link a FOLLOWS_FROM one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from amends.ports.spans import SpanRow

_NO_PARENT = "0" * 16
NO_SPANS: Final = (LookupError, TypeError, ValueError, AttributeError)  # of reading what is built otherwise


def jaeger_json(rows: Sequence[SpanRow]) -> dict[str, Any]:
    """The answer of `/api/traces` and `/api/traces/<id>` for these spans, traces in the order of their first."""
    traces: dict[str, list[SpanRow]] = {}
    for row in rows:
        traces.setdefault(row["trace_id"], []).append(row)
    data = [_trace(trace_id, spans) for trace_id, spans in traces.items()]
    return {"data": data, "total": len(data), "limit": 0, "offset": 0, "errors": None}


def _trace(trace_id: str, rows: Sequence[SpanRow]) -> dict[str, Any]:
    processes: dict[str, dict[str, Any]] = {}
    names: dict[bytes, str] = {}
    spans = []
    for row in rows:
        resource: Mapping[str, Any] = row["resource"] or {"service.name": "amends"}
        key = msgspec.json.encode(resource, order="deterministic")
        if key not in names:
            names[key] = f"p{len(names) + 1}"
            tags = {name: value for name, value in resource.items() if name != "service.name"}
            processes[names[key]] = {"serviceName": resource["service.name"], "tags": list(_tags(tags))}
        spans.append(_span(row, names[key]))
    return {"traceID": trace_id, "spans": spans, "processes": processes, "warnings": None}


def _span(row: SpanRow, process: str) -> dict[str, Any]:
    tags = {**row["attributes"], "span.kind": row["kind"].lower()}
    if row["status"] != "UNSET":
        tags["otel.status_code"] = row["status"]
    if row["status"] == "ERROR":
        tags["error"] = True
        if row["status_message"]:
            tags["otel.status_description"] = row["status_message"]
    references = [_reference("FOLLOWS_FROM", link["trace_id"], link["span_id"]) for link in row["links"]]
    if row["parent_span_id"]:
        references.insert(0, _reference("CHILD_OF", row["trace_id"], row["parent_span_id"]))
    return {
        "traceID": row["trace_id"],
        "spanID": row["span_id"],
        "flags": 1,
        "operationName": row["name"],
        "references": references,
        "startTime": row["start_us"],
        "duration": row["end_us"] - row["start_us"],
        "tags": list(_tags(tags)),
        "logs": [
            {"timestamp": one["time_us"], "fields": list(_tags({"event": one["name"], **one["attributes"]}))}
            for one in row["events"]
        ],
        "processID": process,
        "warnings": None,
    }


def _reference(kind: str, trace_id: str, span_id: str) -> dict[str, str]:
    return {"refType": kind, "traceID": trace_id, "spanID": span_id}


def _tags(attributes: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for key, value in attributes.items():
        if isinstance(value, bool):
            yield {"key": key, "type": "bool", "value": value}
        elif isinstance(value, int):
            yield {"key": key, "type": "int64", "value": value}
        elif isinstance(value, float):
            yield {"key": key, "type": "float64", "value": value}
        else:
            yield {"key": key, "type": "string", "value": value}


def spans_of_jaeger(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The spans of a Jaeger answer or file as rows."""
    rows: list[dict[str, Any]] = []
    for trace in document.get("data") or ():
        processes = trace.get("processes") or {}
        rows.extend(_row(span, processes.get(span.get("processID"), {})) for span in trace["spans"])
    return rows


def _row(span: Mapping[str, Any], process: Mapping[str, Any]) -> dict[str, Any]:
    tags = {tag["key"]: _value(tag) for tag in span.get("tags") or ()}
    kind = str(tags.pop("span.kind", "internal")).upper()
    status = tags.pop("otel.status_code", "ERROR" if tags.get("error") is True else "UNSET")
    tags.pop("error", None)
    message = tags.pop("otel.status_description", "")
    references = span.get("references") or ()
    parents = [one["spanID"] for one in references if one["refType"] == "CHILD_OF"]
    resource = {tag["key"]: _value(tag) for tag in process.get("tags") or ()}
    return {
        "trace_id": span["traceID"].rjust(32, "0"),
        "span_id": span["spanID"].rjust(16, "0"),
        "parent_span_id": next((one for one in parents if one != _NO_PARENT), None),
        "name": span["operationName"],
        "kind": kind,
        "start_us": span["startTime"],
        "end_us": span["startTime"] + span["duration"],
        "status": status,
        "status_message": message,
        "attributes": tags,
        "events": [_event(log) for log in span.get("logs") or ()],
        "links": [
            {"trace_id": one["traceID"], "span_id": one["spanID"]} for one in references if one["refType"] != "CHILD_OF"
        ],
        "resource": {"service.name": process.get("serviceName", ""), **resource},
    }


def _event(log: Mapping[str, Any]) -> dict[str, Any]:
    fields = {field["key"]: _value(field) for field in log.get("fields") or ()}
    return {"name": fields.pop("event", ""), "time_us": log["timestamp"], "attributes": fields}


def _value(tag: Mapping[str, Any]) -> Any:
    """A tag's value; Jaeger writes large whole numbers as text."""
    return int(tag["value"]) if tag.get("type") == "int64" else tag["value"]
