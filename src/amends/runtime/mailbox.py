"""A mailbox exists only while an actor has messages: two lanes, each in order.

The priority lane carries what the runtime itself owes (step outcomes, timers, durable messages). It refuses nothing,
and its bound lies with the senders: outcomes and messages are rows that were intended before, a timer is told once, and
what the outside can say as often as it likes (heartbeats) is one pending word at a time. The ordinary lane carries
commands; a full one refuses (429).
"""

from collections import deque

from amends.turn.messages import Envelope
from amends.values.errors import Rejected

Key = tuple[str, str]  # kind and id of an actor


class Mailbox:
    """Messages waiting for one actor."""

    __slots__ = ("_cap", "_ordinary", "_priority", "busy")

    def __init__(self, cap: int) -> None:
        self._priority: deque[Envelope] = deque()
        self._ordinary: deque[Envelope] = deque()
        self._cap = cap
        self.busy = False

    def put(self, env: Envelope) -> None:
        """Append; raises `Rejected` (throttled) when the ordinary lane is full."""
        if env.priority:
            self._priority.append(env)
        elif len(self._ordinary) >= self._cap:
            raise Rejected("throttled", "too many requests are waiting for this entity; try again later")
        else:
            self._ordinary.append(env)

    def put_back(self, env: Envelope) -> None:
        """Return a message that is to be tried again, before all others."""
        self._priority.appendleft(env)

    def take(self) -> Envelope | None:
        """The next message, priority first."""
        if self._priority:
            return self._priority.popleft()
        if self._ordinary:
            return self._ordinary.popleft()
        return None

    def __len__(self) -> int:
        return len(self._priority) + len(self._ordinary)
