"""Operators' steps on the bus: make missing streams, send again what a wiped stream has lost, a page at a time."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from amends.ports import Outcome, StepCall
from amends.runtime.relay import Publisher
from amends.values.errors import Unavailable

Fetch = Callable[..., Awaitable[Sequence[Any]]]
PAGE = 1000
PAGE_S = 20.0  # a page that is not done by then goes on as the next step


class Streams(Publisher, Protocol):
    """A publisher that can make its streams."""

    async def create_streams(self) -> list[str]:
        """Make those that are missing; returns which. Raises `Unavailable`."""
        ...


class BusAdmin:
    """The step runner `bus-admin`. `may_act`: whether the lease is fresh."""

    def __init__(self, publisher: Streams, fetch: Fetch, may_act: Callable[[], bool]) -> None:
        self._publisher, self._fetch, self._may_act = publisher, fetch, may_act

    async def run(self, call: StepCall) -> Outcome:
        """Do it; both are idempotent: a stream that is there stays, a message id that is known is dropped."""
        try:
            if call.name == "streams.create":
                return Outcome("done", data={"created": await self._publisher.create_streams()})
            return await self._republish(call.args)
        except Unavailable as error:
            return Outcome("failed", "bus_unavailable", str(error))

    async def _republish(self, args: dict[str, Any]) -> Outcome:
        """One page from `place` on; the outcome says where the next one begins, and whether there is one."""
        place, sent, until = args["place"], args["sent"], time.monotonic() + PAGE_S
        rows = await self._fetch("published_since", args["stream"], *place, args["until_us"], PAGE)
        for row in rows:
            if time.monotonic() > until or not self._may_act():
                return Outcome("done", data={"complete": False, "place": place, "sent": sent})
            trace = (row["trace_id"], row["span_id"])
            result = await self._publisher.publish(row["subject"], row["payload"].encode(), row["outbox_id"], trace)
            if result.kind not in ("ok", "duplicate"):
                return Outcome("failed", result.code, result.message, data={"place": place, "sent": sent})
            place, sent = [row["created_us"], row["outbox_id"]], sent + 1
        return Outcome("done", data={"complete": len(rows) < PAGE, "place": place, "sent": sent})
