"""`amends trace show ID`: the spans of a trace and of those it leads to, as trees with what each took.

Read from Jaeger's JSON, as `ops.trace.export` gives it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from adapters.cli import tables
from adapters.cli.client import Api
from adapters.cli.why import find
from amends.values.text import printable

TRACE: Final = re.compile(r"[0-9a-f]{32}")
SHORT: Final = 8
NAMES: Final = 44  # columns for the tree itself

Span = Mapping[str, Any]


async def trace_of(api: Api, identifier: str) -> str:
    """The trace that an id names: itself, or that of a run, an allocation, a step … "" if nothing is known of it."""
    if TRACE.fullmatch(identifier):
        return identifier
    if identifier.startswith("recov_"):
        run = await api.row("recovery_run", identifier)
        return str(run["recovery_trace_id"]) if run is not None else ""
    found = await find(api, identifier)
    return str(found[2].get("trace_id") or found[2].get("recovery_trace_id") or "") if found is not None else ""


def page(document: Mapping[str, Any], first: str) -> str:
    """All traces of the document, `first` before the others."""
    traces = sorted(document["data"], key=lambda trace: (trace["traceID"] != first, _began(trace["spans"])))
    return "\n\n".join("\n".join(_trace(trace)) for trace in traces)


def _in_order(span: Span) -> tuple[int, bool, int, str]:
    """In the order in which they ended; the end of a run, which covers it from its beginning, after what it ends."""
    ended = span["startTime"] + span["duration"]
    return ended, span["operationName"] == "recovery.ended", span["startTime"], span["spanID"]


def _began(spans: Sequence[Span]) -> int:
    return min((int(span["startTime"]) for span in spans), default=0)


def _trace(trace: Mapping[str, Any]) -> Iterator[str]:
    spans: list[Span] = sorted(trace["spans"], key=_in_order)
    own = {span["spanID"] for span in spans}
    children: dict[str, list[Span]] = {}
    for span in spans:
        parent = _parent(span)
        children.setdefault(parent if parent in own else "", []).append(span)
    yield f"trace {trace['traceID']}  {tables.moment(_began(spans))}"
    for root in children.get("", ()):
        yield from _branch(root, children, "", "")


def _parent(span: Span) -> str:
    return next((str(ref["spanID"]) for ref in span["references"] if ref["refType"] == "CHILD_OF"), "")


def _branch(span: Span, children: Mapping[str, Sequence[Span]], first: str, rest: str) -> Iterator[str]:
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    name = printable(f"{first}{span['operationName']}{' ERROR' if tags.get('error') else ''}")
    yield f"{name.ljust(NAMES)} {span['spanID'][:SHORT]}  {span['duration'] / 1000:>9,.1f} ms{_beside(span, tags)}"
    below = children.get(span["spanID"], ())
    for number, child in enumerate(below, 1):
        last = number == len(below)
        yield from _branch(child, children, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))


def _beside(span: Span, tags: Mapping[str, Any]) -> str:
    links = [f"→ {ref['spanID'][:SHORT]}" for ref in span["references"] if ref["refType"] == "FOLLOWS_FROM"]
    outcome = tags.get("recovery.final_outcome") or tags.get("compensation.outcome")
    return printable("".join(f"  {part}" for part in (*links, *((str(outcome),) if outcome else ()))))
