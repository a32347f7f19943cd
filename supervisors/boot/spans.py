"""Spans on their way out: the exporter that follows the journal, and the shapes in which viewers are shown them.

OpenTelemetry's library is a tenth of what a start would load: only a viewer that asks in OTLP needs it here.
"""
# ruff: noqa: PLC0415

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import msgspec

from adapters.otel.environment import Target
from adapters.otel.jaeger import jaeger_json
from adapters.otel.links import with_pointed_at
from adapters.otel.summaries import summaries
from adapters.postgres.journal import PostgresJournal
from amends.runtime.trunk import ChildSpec
from amends.turn.decision import Decision
from amends.values.backoff import Backoff
from amends.values.errors import TurnFailed, Unavailable
from supervisors.api.traces import Shape, Span
from supervisors.boot.export_orders import Orders, Progress

log = logging.getLogger("amends.spans")
CURSOR = "otlp"
TELL_EVERY_S = 0.05  # that something has committed: commits come in bursts
KEEP_EVERY_S = 0.05
STOP_S = 2.0
BACKOFF = Backoff(200, 15_000)


class SpanExport:
    """The exporter as a process of its own (`supervisors.boot.exporting`); its place is kept here, in Postgres.

    It ends with this process. Where it ends by itself it is begun again, after a wait: then a span may go out once
    more, byte for byte the same. Without a receiver there is none. What the attributes say is there to be shown.
    """

    def __init__(self, journal: PostgresJournal, dsn: str, role: str, target: Target) -> None:
        self._journal, self._dsn, self._role, self._target = journal, dsn, role, target
        self._committed, self._moved = asyncio.Event(), asyncio.Event()
        self._before = Progress()  # of the processes that have ended
        self._now = Progress()
        self._ends = 0  # of processes, in a row, that did nothing before
        self.kept = 0

    def follow(self, decision: Decision) -> None:
        """A turn has committed."""
        del decision
        self._committed.set()

    @property
    def cursor(self) -> int:
        """The turn up to which all spans are acknowledged, or refused for good."""
        return self._now.cursor

    @property
    def exported(self) -> int:
        """Spans that were acknowledged."""
        return self._before.exported + self._now.exported

    @property
    def rejected(self) -> int:
        """Spans that the receiver refuses for good."""
        return self._before.rejected + self._now.rejected

    @property
    def failures(self) -> int:
        """Attempts in a row that have failed."""
        return self._ends + self._now.failures

    @property
    def up(self) -> bool:
        """Whether the last attempt went well (or none was needed)."""
        return not self.failures

    def child(self) -> ChildSpec:
        """The exporter as a service."""
        return ChildSpec(name="spans", run=self.run, shutdown_ms=int(STOP_S * 1000) + 1000, detail=lambda: {
            "exported": self.exported, "up": self.up, "cursor": self.cursor})  # fmt: skip

    async def run(self) -> None:
        """Have spans sent until cancelled."""
        if not self._target.url:
            await asyncio.get_running_loop().create_future()  # for ever, at no cost
        self.kept = await self._read_place()
        self._now = Progress(self.kept, self.kept)
        keeping = asyncio.create_task(self._keep_place(), name="spans.place")
        try:
            while True:
                try:
                    why = f"has ended ({await self._one_process()})"
                except (OSError, ValueError) as error:  # no trouble of it is the runtime's
                    why = f"is of no use: {type(error).__name__}: {error}"
                self._ends += 1
                self._before = Progress(exported=self.exported, rejected=self.rejected)
                self._now = Progress(self._now.place, self._now.place)
                log.warning("the process that sends spans %s; spans wait until another is up", why)
                await asyncio.sleep(BACKOFF.delay_us(self._ends, "spans") / 1e6)
        finally:
            keeping.cancel()

    async def _one_process(self) -> int | None:
        """One process, from its start to its end; its exit status."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "supervisors.boot.exporting", stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, start_new_session=True,  # a Ctrl-C is for the runtime, which drains
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        orders = Orders(self._dsn, self._role, self._target, self._now.place)
        process.stdin.write(msgspec.json.encode(orders) + b"\n")
        telling = asyncio.create_task(self._tell(process.stdin), name="spans.commits")
        try:
            async for line in process.stdout:
                self._now = msgspec.json.decode(line, type=Progress)
                self._ends = 0
                self._moved.set()
        finally:
            telling.cancel()
            process.stdin.close()
            await _ended(process)
        return process.returncode

    async def _tell(self, commits: asyncio.StreamWriter) -> None:
        """Say that something has committed, so often at most; a process that has ended is noticed where it is read."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self._committed.wait()
                self._committed.clear()
                commits.write(b"\n")
                await commits.drain()
                await asyncio.sleep(TELL_EVERY_S)

    async def _read_place(self) -> int:
        while True:
            try:
                rows = await self._journal.fetch("read_cursor", CURSOR)
            except (Unavailable, TurnFailed) as error:
                log.warning("the place of the exporter cannot be read: %s", error)
                await asyncio.sleep(BACKOFF.delay_us(1, "place") / 1e6)
            else:
                return int(rows[0]["jseq"]) if rows else 0

    async def _keep_place(self) -> None:
        """Keep in Postgres how far spans are acknowledged, so that another runtime begins there."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            reached = self._now.place
            if reached == self.kept:
                continue
            try:
                await self._journal.fetch("write_cursor", CURSOR, reached)
            except (Unavailable, TurnFailed):  # said where it is felt; what it costs is a span sent once more
                self._moved.set()
                await asyncio.sleep(BACKOFF.delay_us(1, "place") / 1e6)
            else:
                self.kept = reached
                await asyncio.sleep(KEEP_EVERY_S)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait until it has ended by itself, as it does when its standard input ends; kill one that does not."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


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
