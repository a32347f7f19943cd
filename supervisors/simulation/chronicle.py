"""What happens in a random world, in its order: told as it happens, and one digest over all of it."""

import hashlib
from collections.abc import Callable

import msgspec
from msgspec import Struct

from adapters.simulated.bus import SimulatedBus, Stored
from adapters.simulated.journal import Database
from amends.ports.journal import Commit
from supervisors.rental import RENTAL

EVENTS = "amends.v1.evt."


class Happening(Struct, frozen=True):
    """One event of a run: virtual seconds since its beginning, and what."""

    at_s: float
    what: str

    def __str__(self) -> str:
        hours, rest = divmod(self.at_s, 3600)
        return f"{int(hours):3d}:{int(rest // 60):02d}:{rest % 60:06.3f}  {self.what}"


class Chronicle:
    """See above. `keep`: all events are kept, not only their digest."""

    def __init__(self, now_s: Callable[[], float], *, keep: bool = False) -> None:
        self._now_s, self._keep = now_s, keep
        self._digest = hashlib.sha256()
        self.count = 0
        self.happened: list[Happening] = []

    def note(self, what: str) -> None:
        """It happens now."""
        event = Happening(self._now_s(), what)
        self._digest.update(f"{event.at_s:.6f} {what}\n".encode())
        self.count += 1
        if self._keep:
            self.happened.append(event)

    @property
    def digest(self) -> str:
        """Of all events so far, in hex."""
        return self._digest.hexdigest()


class ToldDatabase(Database):
    """A database that tells of its commits, and keeps no list of them: a random world has too many."""

    def __init__(self, told: Callable[[Commit], None]) -> None:
        super().__init__((RENTAL,))
        self._told = told

    def write(self, commit: Commit) -> None:
        """As any does; then it is told of."""
        super().write(commit)
        self.commits.clear()
        self._told(commit)


def said(commit: Commit) -> str:
    """What a commit says, for people: which entity became what, and rows by their kind."""
    states = sorted(f"{write.kind}:{write.id} {write.state}" for write in commit.states)
    rows = sorted(f"{len(rows)} {row.__name__}" for row, rows in commit.rows.items() if rows)
    return "; ".join(part for part in (", ".join(states), ", ".join(rows)) if part) or "nothing"


class ToldBus(SimulatedBus):
    """A bus that knows all events it has ever acknowledged, whatever its streams have lost since: entity and number."""

    def __init__(self) -> None:
        super().__init__()
        self.ever: list[tuple[str, int]] = []

    def _store(self, message: Stored, now_s: float) -> None:
        super()._store(message, now_s)
        if message.subject.startswith(EVENTS):
            event = msgspec.json.decode(message.payload)
            self.ever.append((event["entity"], event["seq"]))
