"""Spans as the view derives them, read for those who follow the journal or look a trace up.

    spans = SpanReader(read_side)
    rows, upto = await spans.after(cursor, 512)   # whole turns; nothing up to `upto` is missing
    rows = await spans.of([trace_id, …])
    rows = await spans.recent(limit=20, since_us=…, until_us=…, name=None, tags={"error": "true"})

    async with snapshot(read_side) as records:     # one instant, for proofs while the runtime goes on
        async for part in records.by_trace(64): …  # spans, compensations, steps of that many traces

Rows are the columns of `public_v1.span` as dicts (attributes, events, links, resource decoded).
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct

from adapters.postgres.connect import DRIVER_ERRORS, classify
from adapters.postgres.reading import ReadSide
from adapters.postgres.statements import statement

WINDOW = 4096  # turns looked at in one query at most: whatever the plan, a query stays small
FULL = 0.8  # of what may be answered: an answer that is cut costs what it leaves away
LOOK_BACK = (5_000, 100_000)  # turns searched for recent traces, until enough are found
# Tags that viewers see and that are columns of their own, in the order of the statements.
COLUMN_TAGS = ("span.kind", "otel.status_code", "error", "otel.status_description")
OPERATIONS_TURNS = 5_000  # whose spans are asked what they are called
SLACK_US = 600_000_000  # a span is committed when it ends, a step some minutes after its begin
LATEST_US = (1 << 63) - 1


class SpanReader:
    """Reads `public_v1.span`. Raises `Unavailable`."""

    def __init__(self, read: ReadSide) -> None:
        self._read = read
        self._resources: dict[int, Any] = {}  # by epoch; what an epoch's is does not change
        self._window = WINDOW // 2  # turns whose spans are expected to be about as many as are asked for

    async def head(self) -> int:
        """The newest committed turn."""
        rows = await self._read.rows("read_head")
        return int(rows[0]["seq"]) if rows else 0

    async def after(self, cursor: int, limit: int) -> tuple[list[dict[str, Any]], int]:
        """The next spans after that turn, about `limit`, and the turn up to which nothing is missing."""
        head = await self.head()  # read first: what it covers is committed before the spans are read
        while cursor < head:
            upper = min(cursor + self._window, head)
            rows = await self._between(cursor, upper, limit)
            cut = len(rows) == limit
            self._fit(rows[-1]["jseq"] - cursor if cut else upper - cursor, len(rows), limit)
            if cut:
                return await self._whole_turns(rows, limit)
            if rows:
                return rows, upper
            cursor = upper
        return [], cursor

    def _fit(self, turns: int, spans: int, limit: int) -> None:
        """Have the next window hold about as many spans as are asked for, as these turns had so many."""
        self._window = max(1, min(WINDOW, int(FULL * limit * turns / spans) if spans else WINDOW))

    async def _whole_turns(self, rows: list[dict[str, Any]], limit: int) -> tuple[list[dict[str, Any]], int]:
        """A full answer may end inside a turn: without that turn, or with all of it if there is no other."""
        last: int = rows[-1]["jseq"]
        whole = [row for row in rows if row["jseq"] < last]
        if whole:
            return whole, last - 1
        return await self._between(last - 1, last, max(limit, 1_000_000)), last

    async def _between(self, after: int, upto: int, limit: int) -> list[dict[str, Any]]:
        rows = await self._read.rows("spans_between", after, upto, limit)
        if unknown := {row["epoch"] for row in rows} - self._resources.keys():
            for found in await self._read.rows("span_resources", sorted(unknown)):
                self._resources[found["epoch"]] = found["resource"]
        for row in rows:
            row["resource"] = self._resources.get(row["epoch"])
        return rows

    async def of(self, trace_ids: Sequence[str]) -> list[dict[str, Any]]:
        """All spans of these traces, by start."""
        return await self._read.rows("spans_of", list(trace_ids))

    async def services(self) -> list[str]:
        """The names under which runtimes record spans."""
        return [row["name"] for row in await self._read.rows("span_services")]

    async def operations(self, service: str) -> list[tuple[str, str]]:
        """(name, kind in small letters) of the service's newer spans."""
        after = max(0, await self.head() - OPERATIONS_TURNS)
        return [(row["name"], row["kind"]) for row in await self._read.rows("span_operations", after, service)]

    async def recent(
        self, *, limit: int = 20, since_us: int = 0, until_us: int = LATEST_US, service: str = "",
        name: str | None = None, min_us: int | None = None, max_us: int | None = None,
        tags: Mapping[str, str] | None = None, trace_ids: Sequence[str] = (),
    ) -> list[dict[str, Any]]:  # fmt: skip
        """All spans of the newest traces that have one span of that time, service, name, duration and all these tags.

        Tags are compared as text, with resource, attributes, events, `span.kind`, `otel.status_code` and `error`. Of
        the turns up to `until_us` the last `LOOK_BACK` are looked at; of `trace_ids`, where they are given, all.
        """
        rest = dict(tags or {})
        columns = [rest.pop(tag, None) for tag in COLUMN_TAGS]
        wanted = (since_us, min(until_us, LATEST_US), service, name, min_us, max_us, *columns, _tags_path(rest))
        if trace_ids:
            found = await self._read.rows("found_traces", list(trace_ids), limit, *wanted)
        else:
            found = await self._newest(limit, wanted)
        return await self.of([row["trace_id"] for row in found]) if found else []

    async def _newest(self, limit: int, wanted: tuple[Any, ...]) -> list[dict[str, Any]]:
        lowest, highest = await self._turn_at(wanted[0] - SLACK_US), await self._turn_at(wanted[1] + SLACK_US)
        found: list[dict[str, Any]] = []
        for back in LOOK_BACK:
            after = max(lowest, highest - back)
            found = await self._read.rows("recent_traces", after, highest, limit, *wanted)
            if len(found) >= limit or after == lowest:
                break
        return found

    async def _turn_at(self, at_us: int) -> int:
        """The newest turn that can have been committed by then."""
        if at_us <= 0:
            return 0
        (head,) = await self._read.rows("read_head")
        if at_us >= head["at_us"]:
            return int(head["seq"])
        return int((await self._read.rows("turn_at", at_us))[0]["jseq"])


class TraceRecords(Struct, frozen=True):
    """Everything that belongs to some traces. `steps` are (step_id, state) of tries that have ended."""

    spans: list[dict[str, Any]]
    compensations: list[dict[str, Any]]
    steps: list[tuple[str, str]]


class Snapshot:
    """Reads of one instant, whatever commits meanwhile."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self._connection = connection

    async def by_trace(self, count: int) -> AsyncIterator[TraceRecords]:
        """All that is recorded, so many traces at a time: no more than those is held."""
        last = ""
        while traces := [row["trace_id"] for row in await self._rows("traces_after", last, count)]:
            spans, undone = await self._rows("spans_of", traces), await self._rows("compensations_of", traces)
            yield TraceRecords(spans, undone, _states(await self._rows("ended_steps_of", traces)))
            last = traces[-1]

    async def places(self, trace_ids: Sequence[str]) -> set[tuple[str, str]]:
        """(trace id, span id) of all spans of these traces."""
        rows = await self._rows("span_places", list(trace_ids)) if trace_ids else []
        return {(row["trace_id"], row["span_id"]) for row in rows}

    async def ended(self) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
        """All compensations, and how every try ended."""
        return await self._rows("all_compensations"), _states(await self._rows("ended_steps"))

    async def _rows(self, name: str, *args: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in await self._connection.fetch(statement(name), *args)]


@asynccontextmanager
async def snapshot(read: ReadSide) -> AsyncIterator[Snapshot]:
    """Everything as it stands now; raises `Unavailable`."""
    try:
        async with read.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            yield Snapshot(connection)
    except DRIVER_ERRORS as error:
        raise classify(error) from error


def _tags_path(tags: Mapping[str, str]) -> str | None:
    """A JSON path that holds for a span with all these tags, None for no tags.

    Who asks has texts only: one that reads as a number or a truth value is compared as such too.
    """
    wanted = []
    for tag, text in tags.items():
        key, value = _json(tag), _json(text)
        values = [value]
        if text in ("true", "false") or (re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text)):
            values.append(text)
        holders = [f"$.a.{key}", f"$.r.{key}", f"$.e[*].attributes.{key}"]
        if tag == "event":
            holders.append("$.e[*].name")
        wanted.append("(" + " || ".join(f"{holder} == {one}" for holder in holders for one in values) + ")")
    return " && ".join(wanted) or None


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _states(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(row["step_id"], row["state"]) for row in rows]
