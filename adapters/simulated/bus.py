"""The bus of a simulated world: streams that acknowledge, know a message twice, are full, vanish or are wiped."""

from msgspec import Struct

from adapters.simulated.faults import CALM, Faults
from amends.ports.bus import Published

PREFIXES = {"amends.v1.evt.": "AMENDS_EVT", "amends.v1.ntf.": "AMENDS_NTF"}


class Stored(Struct, frozen=True):
    """A message that a stream has acknowledged."""

    subject: str
    payload: bytes
    message_id: str


class SimulatedBus:
    """Implements `amends.ports.bus.Publisher`. Kept when a runtime dies; `faults` is set anew for each."""

    def __init__(self) -> None:
        self.streams: dict[str, list[Stored]] = {name: [] for name in PREFIXES.values()}
        self.faults: Faults = CALM
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

    async def create_streams(self) -> list[str]:
        """Make those that are missing; returns which."""
        made, self.missing = sorted(self.missing), set()
        return made

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        """Publish; what `faults` raises is an acknowledgement that never came."""
        what = f"publish {subject.split('.')[2]}"
        stream = next(name for prefix, name in PREFIXES.items() if subject.startswith(prefix))
        self.tried.append(message_id)
        try:
            await self.faults.before(what)
            answer = self._take(stream, Stored(subject, payload, message_id))
            await self.faults.after(what)
        except TimeoutError:
            return Published("down", "ack_timeout", "no acknowledgement in time")
        return answer

    def _take(self, stream: str, message: Stored) -> Published:
        if stream in self.missing:
            return Published("down", "no_stream", "no stream takes the subject")
        if message.message_id in self.poison:
            return Published("poison", "jetstream_10054", "message size exceeds maximum allowed")
        held = self.streams[stream]
        if any(stored.message_id == message.message_id for stored in held):
            return Published("duplicate")
        held.append(message)
        return Published("ok")
