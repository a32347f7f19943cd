"""Where spans point beyond their own trace: links, and the span that a compensation compensates (`traces.md`)."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from amends.ports.spans import SpanRow

Place = tuple[str, str]  # (trace id, span id)
MOST_TRACES = 2_000  # in one answer; links lead on from each to others without end


def pointed_at(span: SpanRow) -> Iterator[Place]:
    """What the span points at among our spans; the link of a command (a server's span) leads to its caller's."""
    if span["kind"] != "SERVER":
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
    trace_ids: Iterable[str],
    read: Callable[[Sequence[str]], Awaitable[list[dict[str, Any]]]],
    at_most: int = MOST_TRACES,
) -> tuple[list[dict[str, Any]], bool]:
    """All spans of these traces and of every trace they lead to, however many steps away, and whether that is all.

    No more than `at_most` traces are read: then some links lead out of what is given.
    """
    spans: list[dict[str, Any]] = []
    asked: set[str] = set()
    wanted = sorted(set(trace_ids))
    while wanted and len(asked) < at_most:
        part = wanted[: at_most - len(asked)]
        asked.update(part)
        spans += await read(part)
        wanted = [trace_id for trace_id in {*wanted, *missing_traces(spans)} if trace_id not in asked]
        wanted.sort()
    return spans, not wanted
