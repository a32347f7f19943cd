"""The exporter of spans in a simulated world: its place never passes over a span, and what comes twice is bounded."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest

from adapters.otel.exporter import SpanExporter
from adapters.simulated.loop import Crashed, VirtualLoop
from adapters.simulated.receiver import Collector, CollectorConnection
from amends.values.errors import Unavailable
from supervisors.simulation.points import MODES, Points

SPANS, BATCH = 40, 7


class Kept:
    """What outlives the exporter's process: the spans of the journal, the place, the collector."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = [
            {"trace_id": "a" * 32, "span_id": f"{each:016x}", "name": "step", "jseq": each // 3 + 1}
            for each in range(SPANS)
        ]
        self.collector, self.place, self.now_s = Collector(), 0, 0.0
        self.away = False

    def last(self) -> int:
        return int(self.rows[-1]["jseq"])

    def exporter(self, points: Points) -> SpanExporter:
        async def read(cursor: int, limit: int) -> tuple[list[dict[str, Any]], int]:
            await points.before("read")
            if self.away:
                raise Unavailable("away")
            found = [row for row in self.rows if int(row["jseq"]) > cursor]
            upto = int(found[min(limit, len(found)) - 1]["jseq"]) if found else cursor
            await points.after("read")
            return [row for row in found if int(row["jseq"]) <= upto], upto

        async def read_cursor() -> int:
            return self.place

        async def write_cursor(jseq: int) -> None:
            await points.before("place")
            self.place = jseq
            await points.after("place")

        receiver = CollectorConnection(self.collector, points)
        return SpanExporter(receiver, read=read, read_cursor=read_cursor, write_cursor=write_cursor, batch=BATCH)

    def run(self, points: Points, story: "Coroutine[Any, Any, None] | None" = None) -> SpanExporter | None:
        """An exporter until it has kept the last place; None if it died before."""
        loop = points.loop = VirtualLoop(self.now_s)
        exporter = self.exporter(points)
        try:
            loop.run_until_complete(self._told(exporter, story))
        except Crashed:
            return None
        finally:
            self.now_s = loop.time()
            loop.bury()
            loop.close()
        return exporter

    async def _told(self, exporter: SpanExporter, story: "Coroutine[Any, Any, None] | None") -> None:
        running = asyncio.create_task(exporter.run())
        if story is not None:
            await story
        async with asyncio.timeout(3600):
            while exporter.kept < self.last():
                assert self.place <= self._safe(), "the place has passed over a span"
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])

    def _safe(self) -> int:
        """Up to where all has arrived, or was refused for good."""
        arrived = {row["span_id"] for row in self.collector.spans}
        missing = [int(row["jseq"]) for row in self.rows if not self._there(row, arrived)]
        return min(missing) - 1 if missing else self.last()

    def _there(self, row: dict[str, Any], arrived: set[Any]) -> bool:
        return row["span_id"] in arrived or row["name"] == self.collector.poison

    def copies(self) -> Counter[str]:
        return Counter(row["span_id"] for row in self.collector.spans)


@pytest.mark.parametrize("mode", MODES)
def test_an_exporter_that_dies_anywhere_loses_nothing_and_repeats_one_request_at_most(mode: str) -> None:
    points = Points()
    assert Kept().run(points) is not None
    for point in points.seen:
        kept, crash = Kept(), Points(point.number, mode)
        assert kept.run(crash) is None
        assert crash.struck == point
        assert kept.run(Points()) is not None
        assert len(kept.copies()) == SPANS
        again = sum(count - 1 for count in kept.copies().values())
        assert again <= max(len(request) for request in kept.collector.requests)
        if point.what == "read":
            assert not again


def test_an_outage_and_refusals_delay_and_repeat_nothing() -> None:
    kept = Kept()
    collector = kept.collector

    async def story() -> None:
        collector.away = True
        await asyncio.sleep(30)
        assert not collector.spans
        assert kept.place == 0
        collector.away, collector.status, collector.wait_s = False, 503, 60.0
        await asyncio.sleep(30)
        collector.status = 200
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(20)
        assert not collector.spans  # it had asked to be left alone for a minute
        kept.away = True
        await asyncio.sleep(60)
        kept.away = False
        assert asyncio.get_running_loop().time() - before == 80

    exporter = kept.run(Points(), story())
    assert exporter is not None
    assert exporter.up
    assert set(kept.copies().values()) == {1}
    assert exporter.exported == SPANS


def test_what_is_refused_for_good_is_passed_over_alone() -> None:
    kept = Kept()
    kept.rows[10]["name"] = kept.collector.poison = "poison"
    kept.collector.room = 3
    exporter = kept.run(Points())
    assert exporter is not None
    assert (exporter.exported, exporter.rejected) == (SPANS - 1, 1)
    assert set(kept.copies().values()) == {1}


def test_what_a_request_that_was_taken_says_of_single_spans_is_counted_and_sent_no_more() -> None:
    kept = Kept()
    kept.collector.rejects = 1
    exporter = kept.run(Points())
    assert exporter is not None
    assert exporter.rejected == len(kept.collector.requests)
    assert set(kept.copies().values()) == {1}
