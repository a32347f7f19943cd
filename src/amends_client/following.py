"""What becomes of an entity: its events with a resume point, and waiting for one of its states.

    rental = await client.allocation.request(account_id="acme", …)
    row = await rental.until("active", timeout_s=60)

Events tell at once; where NATS does not let this user read them (the documented user `front` may not), the row is read
every second instead. That is as correct, a second later, and costs a question each second and waiter.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from amends_client.calls import Calls, Reply
from amends_client.errors import Ended, NoEvents
from amends_client.link import PREFIX, Link
from amends_client.reading import Kind, R, Rows

log = logging.getLogger("amends.client")
S = TypeVar("S", bound=str)
POLL_S: Final = 1.0
LOOK_AGAIN_S: Final = 20.0  # while events are read as well: an event that is parked is not missed for ever
TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")


class Event(Struct, frozen=True):
    """An event. `seq` counts those of its entity from 1; `data` has the entity's own columns after the transition.

    `source` and `to` are states, null where nothing was left or nothing changed; times are microseconds since 1970.
    """

    schema: str
    event_id: str
    seq: int
    occurred_us: int
    entity: str
    cause: str = ""
    trace_id: str = ""
    recovery_trace_id: str | None = None
    source: str | None = msgspec.field(default=None, name="from")
    to: str | None = None
    data: dict[str, Any] = {}


def _subject(entity: str, identifier: str) -> str:
    if not TOKEN.fullmatch(identifier):
        raise ValueError(f"{identifier!r} cannot be the id of an entity")
    return f"{PREFIX}evt.{entity}.{identifier}.>"


async def events(link: Link, entity: str, identifier: str, after: int = 0) -> AsyncGenerator[Event]:
    """Every event of an entity whose `seq` is above `after`, in order, each once; then those to come, for ever.

    What is older than the stream keeps (30 days) is not told, nor an event that an operator publishes again behind
    later ones. Raises `NoEvents`; ValueError for an id that no subject can carry.
    """
    async with aclosing(link.follow(_subject(entity, identifier))) as messages:
        async for body in messages:
            event = msgspec.json.decode(body, type=Event)
            if event.seq > after:
                after = event.seq
                yield event


class Ears:
    """What a wait has heard: `news` since the last look; `reading` once the stream has told anything at all."""

    def __init__(self) -> None:
        self.news, self.reading = asyncio.Event(), False


class Handle(Generic[R, S]):
    """An entity that one follows. `row` is what was known of it last, `reply` the reply that it came from."""

    def __init__(self, calls: Calls, kind: Kind[R], row: R, reply: Reply | None = None) -> None:
        self._calls, self._kind = calls, kind
        self.row, self.reply = row, reply

    @property
    def id(self) -> str:
        """Its id."""
        return str(getattr(self.row, self._kind.key))

    def __repr__(self) -> str:
        return f"<{self._kind.name} {self.id}: {getattr(self.row, 'state', '')}>"

    async def refresh(self) -> R:
        """The row as it is now. Raises `Refused` or `Unreachable`."""
        data = await self._calls.ask(f"qry.{self._kind.name}.get", {"id": self.id})
        self.row = self._kind.row_of(data)
        return self.row

    def events(self, after: int = 0) -> AsyncGenerator[Event]:
        """Its events from the first one on, or after that `seq`. Raises `NoEvents`."""
        return events(self._calls.link, self._kind.name, self.id, after)

    async def until(self, *wanted: S, timeout_s: float | None = None) -> R:
        """Wait until it is in one of these states; its row then. It returns at once if it is there already.

        The row decides, events only say when to look: a state that it passed through between two looks does not count,
        so wait for one that lasts. Raises `Ended` if it can never come, `TimeoutError` after `timeout_s` seconds (None:
        never), `Refused`, and `Unreachable` where the row cannot be read. After an error one may wait again. ValueError
        for what is no state.
        """
        if not wanted or not self._kind.leads.keys() >= set(wanted):
            unknown = ", ".join(repr(state) for state in wanted if state not in self._kind.leads) or "nothing"
            raise ValueError(f"{self._kind.name} is never {unknown}: its states are {', '.join(self._kind.leads)}")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._until(wanted)
        except TimeoutError:
            raise TimeoutError(f"{self!r} is not {'/'.join(wanted)} after {timeout_s} s") from None

    async def _until(self, wanted: tuple[S, ...]) -> R:
        ears = Ears()
        listening = asyncio.create_task(self._listen(ears))
        try:
            while True:
                ears.news.clear()  # before the look: what comes meanwhile is looked at again
                row = await self.refresh()
                state = str(getattr(row, "state", ""))
                if state in wanted:
                    return row
                if not self._kind.may_become(state, wanted):
                    code = getattr(row, "failure_code", None) or getattr(row, "reason", None) or ""
                    raise Ended(f"{self._kind.name} {self.id}", state, "/".join(wanted), code, row)
                await self._wait(ears, listening)
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def _listen(self, ears: Ears) -> None:
        """Tell of every event; first of the last one of each name, so that none falls between this and a look."""
        try:
            async with aclosing(self._calls.link.follow(_subject(self._kind.name, self.id), latest=True)) as messages:
                async for _ in messages:
                    ears.reading = True
                    ears.news.set()
        except NoEvents as error:
            log.info("%r is looked at every second: %s", self, error)
        finally:
            ears.news.set()

    async def _wait(self, ears: Ears, listening: asyncio.Task[None]) -> None:
        if listening.done():
            await self._calls.chance.sleep(POLL_S)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN_S if ears.reading else POLL_S):
                await ears.news.wait()


class Lives(Rows[R], Generic[R, S]):
    """Rows of entities that have events, and so can be waited for."""

    async def follow(self, identifier: str, *, deadline_s: float | None = None) -> Handle[R, S]:
        """A handle of the one of that id. Raises `Refused` (404 `not_found`) or `Unreachable`."""
        return Handle(self._calls, self._kind, await self.get(identifier, deadline_s=deadline_s))


def handle(calls: Calls, kind: Kind[R], reply: Reply) -> Handle[R, Any]:
    """The entity that the reply to a command is about."""
    return Handle(calls, kind, kind.row_of((reply.data or {})[kind.name]), reply)
