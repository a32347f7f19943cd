"""Where spans point beyond their own trace: links, and the span that a compensation compensates (`traces.md`)."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from adapters.otel.encoding import SpanRow

MOST_TRACES = 1_000
Place = tuple[str, str]  # (trace id, span id)


def pointed_at(span: SpanRow) -> Iterator[Place]:
    """What the span points at."""
    for link in span["links"]:
        yield link["trace_id"], link["span_id"]
    trace_id, colon, span_id = str(span["attributes"].get("compensation.compensated_action_ref", "")).partition(":")
    if colon:
        yield trace_id, span_id


def places(spans: Iterable[SpanRow]) -> set[Place]:
    """Where these spans stand."""
    return {(span["trace_id"], span["span_id"]) for span in spans}


def missing_traces(spans: Sequence[SpanRow]) -> list[str]:
    """The traces that these spans point at and that none of them is of."""
    known = {span["trace_id"] for span in spans}
    return sorted({trace_id for span in spans for trace_id, _ in pointed_at(span)} - known)


async def with_pointed_at(
    trace_ids: Iterable[str], read: Callable[[Sequence[str]], Awaitable[list[dict[str, Any]]]]
) -> list[dict[str, Any]]:
    """All spans of these traces and of every trace they lead to, however many steps away, `MOST_TRACES` at most.

    A caller may have sent one trace with thousands of requests; what is left out are the last ones found.
    """
    spans: list[dict[str, Any]] = []
    asked: set[str] = set()
    wanted = sorted(set(trace_ids))
    while wanted := wanted[: max(0, MOST_TRACES - len(asked))]:
        asked.update(wanted)
        spans += await read(wanted)
        wanted = [trace_id for trace_id in missing_traces(spans) if trace_id not in asked]
    return spans
