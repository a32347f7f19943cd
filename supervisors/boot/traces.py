"""Traces of one runtime: the exporter that follows the journal, Jaeger's JSON for pages and files, the verifier."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from adapters.http.jaeger import Shape
from adapters.http.jaeger_query import TraceSearch
from adapters.otel.environment import Target
from adapters.otel.exporter import SpanExporter
from adapters.otel.http import OtlpHttp
from adapters.otel.jaeger import jaeger_json
from adapters.otel.links import with_pointed_at
from adapters.otel.otlp_json import otlp_json, summaries
from adapters.postgres.journal import PostgresJournal
from adapters.postgres.reading import ReadSide
from adapters.postgres.spans import SpanReader
from amends.runtime.trunk import ChildSpec
from amends.turn.decision import Decision
from amends.values.errors import Rejected
from supervisors.boot.verifiers import verify_records

CURSOR = "otlp"
EXPORT_BYTES = 768 * 1024  # a message of NATS carries 1 MiB


class Traces:
    """Everything that reads `public_v1.span`."""

    def __init__(self, read: ReadSide, journal: PostgresJournal, target: Target) -> None:
        self._read, self._journal = read, journal
        self._verifying = asyncio.Lock()
        self.spans = SpanReader(read)
        receiver = OtlpHttp(target) if target.url else None
        self.exporter = SpanExporter(
            receiver, read=self.spans.after, read_cursor=self._cursor, write_cursor=self._keep_cursor
        )

    def follow(self, decision: Decision) -> None:
        """A turn has committed."""
        del decision
        self.exporter.notify()

    def child(self) -> ChildSpec:
        """The exporter as a service."""
        exporter = self.exporter
        return ChildSpec(name="spans", run=exporter.run, detail=lambda: {
            "exported": exporter.exported, "up": exporter.up, "cursor": exporter.cursor})  # fmt: skip

    # --- what viewers ask (adapters.http.jaeger.TraceSource) -----------------------------------------

    async def services(self) -> Sequence[str]:
        """The names under which runtimes record spans."""
        return await self.spans.services()

    async def operations(self, service: str, kind: str | None) -> Sequence[tuple[str, str]]:
        """(name, kind) of the service's newer spans."""
        return [(name, of) for name, of in await self.spans.operations(service) if kind in (None, of)]

    async def find(self, search: TraceSearch, shape: Shape) -> Mapping[str, Any]:
        """The newest traces with a span of that description."""
        rows = await self.spans.recent(
            limit=search.limit, since_us=search.since_us, until_us=search.until_us, service=search.service,
            name=search.operation, min_us=search.min_us, max_us=search.max_us, tags=search.tags,
            trace_ids=search.trace_ids,
        )  # fmt: skip
        return await _shaped(rows, shape)

    async def trace(self, trace_id: str, shape: Shape) -> Mapping[str, Any] | None:
        """One trace, or None."""
        rows = await self.spans.of([trace_id])
        return await _shaped(rows, shape) if rows else None

    # --- files and proofs ----------------------------------------------------------------------------

    async def of_recoveries(self, limit: int) -> dict[str, Any]:
        """Jaeger's JSON of the newest recovery runs and all traces they lead to; fewer if a reply is full.

        `truncated`: fewer runs than were asked for and are there, or a run that leads to more than an answer holds.
        """
        rows = await self._read.rows("recent_recoveries", limit)
        found = len(rows)
        while True:
            trace_ids = {row[key] for row in rows for key in ("recovery_trace_id", "original_trace_id")}
            spans, whole = await with_pointed_at(trace_ids - {""}, self.spans.of)
            traces = jaeger_json(spans)
            fits = whole and len(msgspec.json.encode(traces)) <= EXPORT_BYTES
            if len(rows) <= 1 or fits:
                return {"traces": traces, "recoveries": len(rows), "truncated": not whole or len(rows) < found}
            rows = rows[: len(rows) // 2]

    async def of_trace(self, trace_id: str) -> dict[str, Any]:
        """Jaeger's JSON of one trace and those it leads to; the trace alone where they do not fit into a reply."""
        spans, whole = await with_pointed_at({trace_id}, self.spans.of)
        traces = jaeger_json(spans)
        if len(msgspec.json.encode(traces)) > EXPORT_BYTES:
            traces, whole = jaeger_json(await self.spans.of([trace_id])), False
        if len(msgspec.json.encode(traces)) > EXPORT_BYTES:
            raise Rejected("invalid_request", "the trace is too large for a reply: use /api/traces", field="trace_id")
        return {"traces": traces, "recoveries": 0, "truncated": not whole}

    async def verify(self) -> dict[str, Any]:
        """Compensation rows against spans, one to one, over everything that is recorded; one proof at a time."""
        if self._verifying.locked():
            raise Rejected("throttled", "a verification is under way already; ask again when it has ended")
        async with self._verifying:
            verdict = await verify_records(self._read)
        return {
            "valid": verdict.valid, "compensations": verdict.compensations, "spans": verdict.spans,
            "differences": verdict.differences,
        }  # fmt: skip

    async def _cursor(self) -> int:
        rows = await self._journal.fetch("read_cursor", CURSOR)
        return int(rows[0]["jseq"]) if rows else 0

    async def _keep_cursor(self, jseq: int) -> None:
        await self._journal.fetch("write_cursor", CURSOR, jseq)


async def _shaped(rows: Sequence[Mapping[str, Any]], shape: Shape) -> Mapping[str, Any]:
    if shape == "otlp":
        return await otlp_json(rows)
    return summaries(rows) if shape == "summaries" else jaeger_json(rows)
