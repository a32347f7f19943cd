"""Operators' steps on the bus: make missing streams, send again what a wiped stream has lost, a page at a time."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from amends.delivery.streams import NOTHING_SENT, REPUBLISH
from amends.ports.bus import Publisher
from amends.ports.journal import Journal
from amends.ports.steps import Outcome, StepCall
from amends.turn.decision import EVENTS, Decision
from amends.values.errors import Unavailable

Fetch = Callable[..., Awaitable[Sequence[Any]]]
PAGE = 1000
COUNTED = {"ok": "stored", "duplicate": "duplicate", "poison": "refused"}
STREAM_REF = f"stream:{EVENTS}"
REMEMBERED = 64  # republishes that have ended
ANSWER_S = 20.0
PAGE_S = 20.0  # a page that is not done by then goes on as the next step


class Streams(Publisher, Protocol):
    """A publisher that can make its streams."""

    async def create_streams(self) -> list[str]:
        """Make those that are missing; returns which. Raises `Unavailable`."""
        ...


class BusAdmin:
    """The step runner `bus-admin`. `may_act`: whether the lease is fresh."""

    def __init__(self, publisher: Streams, journal: Journal, may_act: Callable[[], bool]) -> None:
        self._publisher, self._journal, self._may_act = publisher, journal, may_act

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
        clock = asyncio.get_running_loop().time
        place, counts, until = args["place"], dict(args.get("counts", NOTHING_SENT)), clock() + PAGE_S
        rows = await self._journal.published_events(args["stream"], tuple(place), args["until_us"], PAGE)
        for row in rows:
            if clock() > until or not self._may_act():
                return Outcome("done", data={"complete": False, "place": place, "counts": counts})
            message_id = f"{row.outbox_id}.r{args.get('number', 0)}"
            trace = (row.trace_id, row.span_id)
            result = await self._publisher.publish(row.subject, row.payload.encode(), message_id, trace)
            if result.kind == "down":
                return Outcome("failed", result.code, result.message, data={"place": place, "counts": counts})
            counts[COUNTED[result.kind]] += 1
            place = [row.created_us, row.outbox_id]
        return Outcome("done", data={"complete": len(rows) < PAGE, "place": place, "counts": counts})


class Republishes:
    """What became of operators' republishes, for whoever asked. Follows committed turns.

    `fetch` reads what ended before this runtime began, or too long ago to be remembered.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._ended: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._asking: dict[str, list[asyncio.Future[None]]] = {}

    def follow(self, decision: Decision) -> None:
        """A republish that ends says so in the audit."""
        if decision.kind.name != "stream":
            return
        for entry in decision.audits:
            verb, _, outcome = entry.action.rpartition(".")
            if verb == REPUBLISH:
                self._end(dict(entry.details), outcome == "done")

    def _end(self, details: dict[str, Any], complete: bool) -> None:
        request_id = details.pop("request_id")
        found = {name: details[name] for name in NOTHING_SENT if name in details} | {"complete": complete}
        if not complete:
            found["code"] = details.get("code", "")
        self._ended[request_id] = found
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        for asking in self._asking.pop(request_id, ()):
            if not asking.done():
                asking.set_result(None)

    async def outcome(self, request_id: str) -> dict[str, Any]:
        """The counts, once it has ended; what goes on for longer than an answer may take is `complete` false."""
        if request_id not in self._ended:
            asking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._asking.setdefault(request_id, []).append(asking)
            for row in await self._fetch("republish_outcome", STREAM_REF, request_id):
                self._end(dict(row["details"]), row["action"].endswith(".done"))
            await asyncio.wait({asking}, timeout=ANSWER_S)
            if not asking.done():
                self._asking[request_id].remove(asking)
                if not self._asking[request_id]:
                    del self._asking[request_id]
        return self._ended.get(request_id, {"complete": False})
