"""Operators' steps on the bus: make missing streams, send again what a wiped stream has lost."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from adapters.nats.publishing import JetStreamPublisher
from amends.ports import Outcome, StepCall
from amends.values.errors import Unavailable

Fetch = Callable[..., Awaitable[Sequence[Any]]]


class BusAdmin:
    """The step runner `bus-admin`."""

    def __init__(self, publisher: JetStreamPublisher, fetch: Fetch) -> None:
        self._publisher, self._fetch = publisher, fetch

    async def run(self, call: StepCall) -> Outcome:
        """Do it; both are idempotent: a stream that is there stays, a message id that is known is dropped."""
        try:
            if call.name == "streams.create":
                return Outcome("done", data={"created": await self._publisher.create_streams()})
            return await self._republish(call.args["stream"], call.args["since_us"])
        except Unavailable as error:
            return Outcome("failed", "bus_unavailable", str(error))

    async def _republish(self, stream: str, since_us: int) -> Outcome:
        sent, place = 0, (0, "")
        while True:
            rows = await self._fetch("published_since", stream, since_us, *place)
            for row in rows:
                trace = (row["trace_id"], row["span_id"])
                result = await self._publisher.publish(row["subject"], row["payload"].encode(), row["outbox_id"], trace)
                if result.kind not in ("ok", "duplicate"):
                    return Outcome("failed", result.code, f"stopped after {sent} events: {result.message}")
                sent += 1
            if not rows:
                return Outcome("done", data={"sent": sent})
            place = (rows[-1]["jseq"], rows[-1]["outbox_id"])
