"""Traces: what viewers ask for, the files that operators take away, and the proof that records and spans agree."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Struct

from amends.ports.reading import Reader
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from amends.values.errors import Rejected
from supervisors.api import endpoints as wire

EXPORT_BYTES = 768 * 1024  # a message of NATS carries 1 MiB
SHOWN = 200
Shape = Literal["jaeger", "otlp", "summaries"]
Span = dict[str, Any]  # the columns of public_v1.span


class Search(Protocol):
    """Traces with a span of this description; times and durations in microseconds, None where nothing is asked."""

    @property
    def service(self) -> str:
        """Whose spans; "" for anybody's."""
        ...

    @property
    def operation(self) -> str | None:
        """The span's name."""
        ...

    @property
    def limit(self) -> int:
        """How many traces."""
        ...

    @property
    def since_us(self) -> int:
        """From when on."""
        ...

    @property
    def until_us(self) -> int:
        """Until when."""
        ...

    @property
    def min_us(self) -> int | None:
        """The shortest duration."""
        ...

    @property
    def max_us(self) -> int | None:
        """The longest."""
        ...

    @property
    def tags(self) -> Mapping[str, str]:
        """All of these, compared as texts."""
        ...

    @property
    def trace_ids(self) -> Sequence[str]:
        """Only these, where there are any."""
        ...


class Spans(Protocol):
    """Spans as they are recorded. All raise `Unavailable`."""

    async def services(self) -> list[str]:
        """The names under which runtimes record spans."""
        ...

    async def operations(self, service: str) -> list[tuple[str, str]]:
        """(name, kind) of the service's newer spans."""
        ...

    async def of(self, trace_ids: Sequence[str]) -> list[Span]:
        """All spans of these traces, by start."""
        ...

    async def recent(
        self, *, limit: int, since_us: int, until_us: int, service: str, name: str | None, min_us: int | None,
        max_us: int | None, tags: Mapping[str, str], trace_ids: Sequence[str],
    ) -> list[Span]:  # fmt: skip
        """All spans of the newest traces that have one such span."""
        ...


class Shapes(Protocol):
    """How spans are shown, and where they lead."""

    def jaeger(self, spans: Sequence[Span]) -> dict[str, Any]:
        """Jaeger's JSON."""
        ...

    async def shown(self, spans: Sequence[Span], shape: Shape) -> Mapping[str, Any]:
        """The same in one of the shapes."""
        ...

    async def leading_on(
        self, trace_ids: set[str], read: Callable[[Sequence[str]], Awaitable[list[Span]]]
    ) -> tuple[list[Span], bool]:
        """All spans of these traces and of those they point at, and whether that is all."""
        ...


class TraceVerdict(Struct):
    """What was compared and what differs; the first `SHOWN` differences in words."""

    compensations: int = 0
    spans: int = 0
    different: int = 0
    differences: list[str] = []

    @property
    def valid(self) -> bool:
        """Whether nothing differs."""
        return not self.different

    def take(self, compensations: int, spans: int, found: Sequence[str]) -> None:
        """Add what one comparison came to."""
        self.compensations += compensations
        self.spans += spans
        self.different += len(found)
        self.differences += found[: SHOWN - len(self.differences)]


class Traces:
    """Answers with spans. `verify` compares compensations and spans, over everything that is recorded."""

    def __init__(
        self, spans: Spans, shapes: Shapes, read: Reader, verify: Callable[[], Awaitable[TraceVerdict]]
    ) -> None:
        self._spans, self._shapes, self._read, self._verify = spans, shapes, read, verify
        self._verifying = asyncio.Lock()

    # --- what viewers ask over HTTP ------------------------------------------------------------------

    async def services(self) -> Sequence[str]:
        """The names under which runtimes record spans."""
        return await self._spans.services()

    async def operations(self, service: str, kind: str | None) -> Sequence[tuple[str, str]]:
        """(name, kind) of the service's newer spans."""
        return [(name, of) for name, of in await self._spans.operations(service) if kind in (None, of)]

    async def find(self, search: Search, shape: Shape) -> Mapping[str, Any]:
        """The newest traces with a span of that description."""
        spans = await self._spans.recent(
            limit=search.limit, since_us=search.since_us, until_us=search.until_us, service=search.service,
            name=search.operation, min_us=search.min_us, max_us=search.max_us, tags=search.tags,
            trace_ids=search.trace_ids,
        )  # fmt: skip
        return await self._shapes.shown(spans, shape)

    async def trace(self, trace_id: str, shape: Shape) -> Mapping[str, Any] | None:
        """One trace, or None."""
        spans = await self._spans.of([trace_id])
        return await self._shapes.shown(spans, shape) if spans else None

    # --- what operators ask --------------------------------------------------------------------------

    def endpoints(self) -> list[Endpoint]:
        """Its subjects."""
        return [
            Endpoint(subject="ops.trace.verify", request=wire.Empty, role="viewer", answer=self._verified),
            Endpoint(subject="ops.trace.export", request=wire.Export, role="viewer", answer=self._exported),
        ]

    async def _exported(self, request: wire.Export, identity: Identity) -> dict[str, Any]:
        if request.trace_id is not None:
            return await self._of_trace(request.trace_id)
        return await self._of_recoveries(request.limit)

    async def _of_recoveries(self, limit: int) -> dict[str, Any]:
        """Jaeger's JSON of the newest recovery runs and all traces they lead to; fewer if a reply is full.

        `truncated`: fewer runs than were asked for and are there, or a run that leads to more than an answer holds.
        """
        rows = await self._read.rows("recent_recoveries", limit)
        found = len(rows)
        while True:
            trace_ids = {row[key] for row in rows for key in ("recovery_trace_id", "original_trace_id")}
            spans, whole = await self._shapes.leading_on(trace_ids - {""}, self._spans.of)
            traces = self._shapes.jaeger(spans)
            fits = whole and len(msgspec.json.encode(traces)) <= EXPORT_BYTES
            if len(rows) <= 1 or fits:
                return {"traces": traces, "recoveries": len(rows), "truncated": not whole or len(rows) < found}
            rows = rows[: len(rows) // 2]

    async def _of_trace(self, trace_id: str) -> dict[str, Any]:
        """Jaeger's JSON of one trace and those it leads to; the trace alone where they do not fit into a reply."""
        spans, whole = await self._shapes.leading_on({trace_id}, self._spans.of)
        traces = self._shapes.jaeger(spans)
        if len(msgspec.json.encode(traces)) > EXPORT_BYTES:
            traces, whole = self._shapes.jaeger(await self._spans.of([trace_id])), False
        if len(msgspec.json.encode(traces)) > EXPORT_BYTES:
            raise Rejected("invalid_request", "the trace is too large for a reply: use /api/traces", field="trace_id")
        return {"traces": traces, "recoveries": 0, "truncated": not whole}

    async def _verified(self, request: wire.Empty, identity: Identity) -> dict[str, Any]:
        """One proof at a time."""
        if self._verifying.locked():
            raise Rejected("throttled", "a verification is under way already; ask again when it has ended")
        async with self._verifying:
            verdict = await self._verify()
        return {
            "valid": verdict.valid, "compensations": verdict.compensations, "spans": verdict.spans,
            "differences": verdict.differences,
        }  # fmt: skip
