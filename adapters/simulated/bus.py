"""The bus of a simulated world: streams that acknowledge and know a message twice, and all that may happen to them."""

import asyncio
from collections.abc import Callable, Sequence

from msgspec import Struct

from adapters.simulated.faults import CALM, Faults, Links
from amends.ports.bus import NOT_TOGETHER, Outgoing, Published

DUPLICATE_WINDOW_S = 600.0  # that of the streams which the runtime makes
LATE = Published("down", "ack_timeout", "no acknowledgement in time")
FULL = Published("down", "jetstream_10077", "maximum messages exceeded")
POISON = Published("poison", "jetstream_10054", "message size exceeds maximum allowed")
PREFIXES = {"amends.v1.evt.": "AMENDS_EVT", "amends.v1.ntf.": "AMENDS_NTF"}


class Stored(Struct, frozen=True):
    """A message that a stream has acknowledged."""

    subject: str
    payload: bytes
    message_id: str


Says = Callable[[Stored], Published | None]


class SimulatedBus:
    """The broker: what is kept when a runtime dies.

    `refuses` says what is answered instead of taking a message, `unheard` whether its acknowledgement gets lost,
    `way_s` how long it is on its way.
    """

    def __init__(self) -> None:
        self.streams: dict[str, list[Stored]] = {name: [] for name in PREFIXES.values()}
        self._known: dict[str, dict[str, float]] = {name: {} for name in PREFIXES.values()}
        self.missing: set[str] = set()
        self.full: set[str] = set()
        self.refuses: Says = lambda message: None
        self.unheard: Callable[[Stored], bool] = lambda message: False
        self.way_s: Callable[[str], float] = lambda message_id: 0.0
        self.tried: list[str] = []
        self.together = True  # whether it takes messages together

    def delete(self, stream: str) -> None:
        """The stream is gone, with all it held and knew."""
        self.missing.add(stream)
        self.full.discard(stream)
        self.lose(stream, len(self.streams[stream]))

    def create(self, stream: str) -> None:
        """It is there again, and empty."""
        self.missing.discard(stream)

    def purge(self, stream: str) -> None:
        """It is emptied; what it has seen within its window it still knows."""
        self.streams[stream] = []

    def lose(self, stream: str, count: int) -> None:
        """Its disk has lost the last ones that it had acknowledged, and it knows nothing of them."""
        held = self.streams[stream]
        for message in held[len(held) - count :]:
            self._known[stream].pop(message.message_id, None)
        del held[len(held) - count :]

    def take(self, message: Stored, now_s: float) -> Published:
        """What is said of a message that has come."""
        self.tried.append(message.message_id)
        said = self._said(message, now_s)
        if said.kind == "ok":
            self._store(message, now_s)
        return said

    def take_together(self, messages: Sequence[Stored], now_s: float) -> Published:
        """What is said of messages that have come as one: all are taken, or none."""
        if not self.together:
            return Published("down", NOT_TOGETHER, "the stream takes messages one by one")
        for message in messages:
            said = self._said(message, now_s)
            if said.kind != "ok":
                return Published("down", said.code or "jetstream_10201", said.message)
        for message in messages:
            self.tried.append(message.message_id)
            self._store(message, now_s)
        return Published("ok")

    def _said(self, message: Stored, now_s: float) -> Published:
        stream = _stream_of(message)
        if stream in self.missing:
            return Published("down", "no_stream", "no stream takes the subject")
        refused = self.refuses(message)
        if refused is not None:
            return refused
        seen_s = self._known[stream].get(message.message_id)
        if seen_s is not None and now_s - seen_s < DUPLICATE_WINDOW_S:
            return Published("duplicate")
        return FULL if stream in self.full else Published("ok")

    def _store(self, message: Stored, now_s: float) -> None:
        stream = _stream_of(message)
        self._known[stream][message.message_id] = now_s
        self.streams[stream].append(message)


def _stream_of(message: Stored) -> str:
    return next(name for prefix, name in PREFIXES.items() if message.subject.startswith(prefix))


class BusConnection:
    """Implements `amends.ports.bus.Publisher` for one process, which passes `faults` at every call."""

    def __init__(self, bus: SimulatedBus, faults: Faults = CALM, links: Links | None = None) -> None:
        self._bus, self._faults, self._links = bus, faults, links or Links()

    async def create_streams(self) -> list[str]:
        """Make those that are missing; returns which."""
        made = sorted(self._bus.missing)
        for stream in made:
            self._bus.create(stream)
        return made

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        """Publish; what `faults` raises is an acknowledgement that never came."""
        what, message = f"publish {subject.split('.')[2]}", Stored(subject, payload, message_id)
        try:
            await self._faults.before(what)
            if not self._linked():
                return Published("down", "bus_unavailable", "not connected to NATS")
            if on_its_way := self._bus.way_s(message_id):
                await asyncio.sleep(on_its_way)
            answer = self._bus.take(message, asyncio.get_running_loop().time())
            await self._faults.after(what)
        except TimeoutError:
            return LATE
        return answer if self._linked() and not self._bus.unheard(message) else LATE

    async def publish_together(self, messages: Sequence[Outgoing]) -> Published:
        """Publish them as one; what `faults` raises is an acknowledgement that never came."""
        stored = [Stored(each.subject, each.payload, each.message_id) for each in messages]
        what = "publish together"
        try:
            await self._faults.before(what)
            if not self._linked():
                return Published("down", "bus_unavailable", "not connected to NATS")
            if on_its_way := max(self._bus.way_s(each.message_id) for each in messages):
                await asyncio.sleep(on_its_way)
            answer = self._bus.take_together(stored, asyncio.get_running_loop().time())
            await self._faults.after(what)
        except TimeoutError:
            return LATE
        return answer if self._linked() and not any(map(self._bus.unheard, stored)) else LATE

    def _linked(self) -> bool:
        return self._links.bus
