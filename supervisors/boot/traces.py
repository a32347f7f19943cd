"""Traces of one runtime: the exporter that follows the journal, Jaeger's JSON for pages and files, the verifier."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from adapters.http.server import TraceSearch
from adapters.otel.exporter import SpanExporter
from adapters.otel.jaeger import jaeger_json
from adapters.postgres.journal import PostgresJournal
from adapters.postgres.reading import ReadSide
from adapters.postgres.spans import SpanReader
from amends.runtime.decision import Decision
from amends.runtime.trunk import ChildSpec
from amends.values.errors import Rejected
from supervisors.boot.verifiers import verify_records

CURSOR = "otlp"
EXPORT_BYTES = 768 * 1024  # a message of NATS carries 1 MiB


class Traces:
    """Everything that reads `public_v1.span`."""

    def __init__(self, read: ReadSide, journal: PostgresJournal, endpoint: str) -> None:
        self._read, self._journal = read, journal
        self._verifying = asyncio.Lock()
        self.spans = SpanReader(read)
        self.exporter = SpanExporter(
            endpoint, read=self.spans.after, read_cursor=self._cursor, write_cursor=self._keep_cursor
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

    async def search(self, search: TraceSearch) -> Mapping[str, Any]:
        """`/api/traces`."""
        rows = await self.spans.recent(
            limit=search.limit, since_us=search.since_us, until_us=search.until_us, name=search.operation,
            attributes=search.tags,
        )  # fmt: skip
        return jaeger_json(rows)

    async def trace(self, trace_id: str) -> Mapping[str, Any]:
        """`/api/traces/<id>`."""
        return jaeger_json(await self.spans.of([trace_id]))

    async def of_recoveries(self, limit: int) -> dict[str, Any]:
        """Jaeger's JSON of the newest recovery runs, each with the trace it began in; fewer if a reply is full."""
        rows = await self._read.rows("recent_recoveries", limit)
        while True:
            trace_ids = {row[key] for row in rows for key in ("recovery_trace_id", "original_trace_id")}
            traces = jaeger_json(await self.spans.of(sorted(trace_ids)))
            if len(rows) <= 1 or len(msgspec.json.encode(traces)) <= EXPORT_BYTES:
                return {"traces": traces, "recoveries": len(rows)}
            rows = rows[: len(rows) // 2]

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
        await self._journal.execute("write_cursor", CURSOR, jseq)
