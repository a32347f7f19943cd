"""The bus of a simulated world: streams that acknowledge, know a message twice, are full, vanish or are wiped."""

from msgspec import Struct

from adapters.simulated.faults import CALM, Faults, Links
from amends.ports.bus import Published

LATE = Published("down", "ack_timeout", "no acknowledgement in time")
PREFIXES = {"amends.v1.evt.": "AMENDS_EVT", "amends.v1.ntf.": "AMENDS_NTF"}


class Stored(Struct, frozen=True):
    """A message that a stream has acknowledged."""

    subject: str
    payload: bytes
    message_id: str


class SimulatedBus:
    """The broker: what is kept when a runtime dies."""

    def __init__(self) -> None:
        self.streams: dict[str, list[Stored]] = {name: [] for name in PREFIXES.values()}
        self.missing: set[str] = set()
        self.poison: set[str] = set()  # message ids that the broker refuses for themselves
        self.tried: list[str] = []

    def delete(self, stream: str) -> None:
        """The stream is gone, with all it held."""
        self.missing.add(stream)
        self.streams[stream] = []

    def create(self, stream: str) -> None:
        """It is there again, and empty."""
        self.missing.discard(stream)

    def take(self, stream: str, message: Stored) -> Published:
        """What is said of a message that has come."""
        if stream in self.missing:
            return Published("down", "no_stream", "no stream takes the subject")
        if message.message_id in self.poison:
            return Published("poison", "jetstream_10054", "message size exceeds maximum allowed")
        held = self.streams[stream]
        if any(stored.message_id == message.message_id for stored in held):
            return Published("duplicate")
        held.append(message)
        return Published("ok")


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
        what = f"publish {subject.split('.')[2]}"
        stream = next(name for prefix, name in PREFIXES.items() if subject.startswith(prefix))
        try:
            await self._faults.before(what)
            if not self._links.bus:
                return Published("down", "disconnected", "the bus cannot be reached")
            self._bus.tried.append(message_id)
            answer = self._bus.take(stream, Stored(subject, payload, message_id))
            await self._faults.after(what)
            if not self._links.bus:
                return LATE
        except TimeoutError:
            return LATE
        return answer
