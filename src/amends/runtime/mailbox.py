"""A mailbox exists only while an actor has messages: two lanes, each bounded.

The priority lane carries what the runtime itself owes (step outcomes, timers, durable messages); the ordinary lane
carries commands. A full ordinary lane refuses (429); a full priority lane is a bug of the sender's bound, since
durable messages and outcomes are limited by what was intended before.
"""

from collections import deque

from amends.runtime.messages import Envelope
from amends.values.errors import Bug, Rejected


class Mailbox:
    """Messages waiting for one actor."""

    __slots__ = ("_caps", "_ordinary", "_priority", "busy")

    def __init__(self, caps: tuple[int, int]) -> None:
        self._priority: deque[Envelope] = deque()
        self._ordinary: deque[Envelope] = deque()
        self._caps = caps
        self.busy = False

    @property
    def full(self) -> bool:
        """Whether the priority lane takes nothing more now."""
        return len(self._priority) >= self._caps[0]

    def put(self, env: Envelope) -> None:
        """Append; raises `Rejected` (throttled) when the ordinary lane is full."""
        if env.priority:
            if len(self._priority) >= self._caps[0]:
                raise Bug("priority lane is full")
            self._priority.append(env)
        elif len(self._ordinary) >= self._caps[1]:
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
