"""Spans on their way out: the exporter that follows the journal, and the shapes in which viewers are shown them.

OpenTelemetry's library is a tenth of what a start would load: only a receiver, or a viewer that asks in OTLP, needs it.
"""
# ruff: noqa: PLC0415

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import Any

from adapters.otel.environment import Target
from adapters.otel.exporter import SpanExporter
from adapters.otel.jaeger import jaeger_json
from adapters.otel.links import with_pointed_at
from adapters.otel.summaries import summaries
from adapters.postgres.journal import PostgresJournal
from adapters.postgres.spans import SpanReader
from amends.ports.spans import SpanReceiver
from amends.runtime.trunk import ChildSpec
from amends.turn.decision import Decision
from supervisors.api.traces import Shape, Span

CURSOR = "otlp"


class SpanExport:
    """The exporter, with its place kept in Postgres. Follows committed turns."""

    def __init__(self, spans: SpanReader, journal: PostgresJournal, target: Target) -> None:
        self._journal = journal
        receiver = _receiver(target) if target.url else None
        self.exporter = SpanExporter(
            receiver, read=spans.after, read_cursor=self._cursor, write_cursor=self._keep_cursor
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

    async def _cursor(self) -> int:
        rows = await self._journal.fetch("read_cursor", CURSOR)
        return int(rows[0]["jseq"]) if rows else 0

    async def _keep_cursor(self, jseq: int) -> None:
        await self._journal.fetch("write_cursor", CURSOR, jseq)


def _receiver(target: Target) -> AbstractAsyncContextManager[SpanReceiver]:
    from adapters.otel.http import OtlpHttp

    return OtlpHttp(target)


class Shown:
    """Spans in the shapes of the OTel adapter (`supervisors.api.traces.Shapes`)."""

    def jaeger(self, spans: Sequence[Span]) -> dict[str, Any]:
        """Jaeger's JSON."""
        return jaeger_json(spans)

    async def shown(self, spans: Sequence[Span], shape: Shape) -> Mapping[str, Any]:
        """The same in one of the shapes."""
        if shape == "otlp":
            await asyncio.to_thread(import_module, "adapters.otel.otlp_json")  # a tenth of a second, once
            from adapters.otel.otlp_json import otlp_json

            return await otlp_json(spans)
        return summaries(spans) if shape == "summaries" else jaeger_json(spans)

    async def leading_on(
        self, trace_ids: set[str], read: Callable[[Sequence[str]], Awaitable[list[Span]]]
    ) -> tuple[list[Span], bool]:
        """All spans of these traces and of those they point at, and whether that is all."""
        return await with_pointed_at(trace_ids, read)
