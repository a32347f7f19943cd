"""A receiver of spans in a simulated world: takes them, refuses them, is away, or takes a part."""

from collections.abc import Sequence
from typing import Self

from adapters.simulated.faults import CALM, Faults
from amends.ports.spans import NotAccepted, SpanRow, Taken


class Collector:
    """What is kept when the exporter's process dies.

    `status` is what is answered, `room` how many spans a request may have, `poison` the name of spans that are refused
    for good, `rejects` how many of each request are, `wait_s` how long it wants to be left alone.
    """

    def __init__(self) -> None:
        self.requests: list[list[SpanRow]] = []
        self.away, self.status, self.room, self.poison, self.rejects, self.wait_s = False, 200, 1_000_000, "", 0, 0.0

    @property
    def spans(self) -> list[SpanRow]:
        """All that were taken, in the order of their arrival."""
        return [row for request in self.requests for row in request]

    def take(self, rows: Sequence[SpanRow]) -> Taken:
        """What is said of a request that has come; raises `NotAccepted`."""
        status = 413 if len(rows) > self.room else self.status
        if any(row["name"] == self.poison for row in rows):
            status = 400
        if status != 200:
            wait_s = self.wait_s if status in (429, 503) else 0.0
            raise NotAccepted(f"{status} not now", for_good=status in (400, 413), wait_s=wait_s)
        self.requests.append(list(rows))
        return Taken(self.rejects)


class CollectorConnection:
    """Implements `amends.ports.spans.SpanReceiver` for one process, which passes `faults` at every request."""

    def __init__(self, collector: Collector, faults: Faults = CALM) -> None:
        self._collector, self._faults = collector, faults

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """Nothing is open."""

    async def take(self, rows: Sequence[SpanRow]) -> Taken:
        """See `SpanReceiver.take`; what `faults` raises is an answer that never came."""
        await self._faults.before("export")
        if self._collector.away:
            raise ConnectionRefusedError("nobody listens")
        taken = self._collector.take(rows)
        await self._faults.after("export")
        return taken
