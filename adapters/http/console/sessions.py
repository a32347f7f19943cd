"""Who has logged in. A session is kept in memory only: after a restart one logs in again.

The browser has a random name of it in a cookie that no script reads; the token itself never leaves the process again.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from adapters.http.console.ports import Operator

IDLE_S, LONGEST_S = 8 * 3600.0, 24 * 3600.0
LINK_S = 300.0
MOST = 1_000


class Session(Struct):
    """Of one browser. `csrf` stands in each of its forms."""

    token: str
    operator: Operator
    csrf: str
    began: float
    seen: float
    said: str = ""  # what came of its last command, until it is shown


class Sessions:
    """At most `MOST` of them, and as many links; the oldest are forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._links: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def open(self, token: str, operator: Operator) -> str:
        """A new session; its name."""
        now, name = self._clock(), secrets.token_urlsafe(32)
        for old, session in list(self._sessions.items()):
            if _is_over(session, now):
                del self._sessions[old]
        self._sessions[name] = Session(token, operator, secrets.token_urlsafe(32), now, now)
        while len(self._sessions) > MOST:
            self._sessions.popitem(last=False)
        return name

    def find(self, name: str, *, used: bool = True) -> Session | None:
        """The session of that name, if it is not over; it lasts longer by being used, not by a page that is open."""
        session, now = self._sessions.get(name), self._clock()
        if session is None:
            return None
        if _is_over(session, now):
            del self._sessions[name]
            return None
        if used:
            session.seen = now
        return session

    def end(self, name: str) -> None:
        """It is over."""
        self._sessions.pop(name, None)

    def link(self, token: str) -> str:
        """A key that logs in once, within `LINK_S`."""
        key, now = secrets.token_urlsafe(32), self._clock()
        for old, (_, until) in list(self._links.items()):
            if until <= now:
                del self._links[old]
        self._links[key] = (token, self._clock() + LINK_S)
        while len(self._links) > MOST:
            self._links.popitem(last=False)
        return key

    def is_good(self, key: str) -> bool:
        """Whether the key would log in."""
        return key in self._links and self._links[key][1] > self._clock()

    def redeem(self, key: str) -> str:
        """The token behind a key, which is spent by that; "" for none."""
        token, until = self._links.pop(key, ("", 0.0))
        return token if until > self._clock() else ""


def _is_over(session: Session, now: float) -> bool:
    return now - session.seen > IDLE_S or now - session.began > LONGEST_S
