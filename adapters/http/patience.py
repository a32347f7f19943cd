"""Connections that ask for nothing: aiohttp bounds the wait for a next request, not that for a whole one.

    patience = Patience(connections)        # `patience.watched` is a middleware, `patience.run()` looks until cancelled

Who has not sent the head of a request within `HEAD_S` of connecting, or of its last answer, is cut off, and who takes
longer than `BODY_S` for a body gets 408.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from aiohttp import web

from adapters.http.answers import Handler

HEAD_S: Final = 30.0
BODY_S: Final = 30.0
LOOK_S: Final = 5.0


class Patience:
    """See above. `connections`: those that are there; `clock` in seconds."""

    def __init__(self, connections: Callable[[], Iterable[Any]], clock: Callable[[], float] = time.monotonic) -> None:
        self._connections, self._clock = connections, clock
        self._since: dict[Any, float] = {}  # connection → since when nothing whole has come
        self._busy: set[Any] = set()

    @web.middleware
    async def watched(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer; while that goes on, the connection is not idle."""
        protocol = request.protocol
        self._busy.add(protocol)
        try:
            if request.can_read_body:
                await _within(request)
            return await handler(request)
        finally:
            self._busy.discard(protocol)
            self._since[protocol] = self._clock()

    async def run(self) -> None:
        """Until cancelled: look at what is there, every few seconds."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Cut off who has had its time."""
        now, there = self._clock(), list(self._connections())
        self._since = {each: self._since.get(each, now) for each in there}
        for each in there:
            if each not in self._busy and now - self._since[each] > HEAD_S:
                each.force_close()


async def _within(request: web.Request) -> None:
    """The body is read here, so that nobody waits for it later; what is too large or cannot be decoded is refused."""
    try:
        async with asyncio.timeout(BODY_S):
            await request.read()
    except TimeoutError:
        raise _last(request, web.HTTPRequestTimeout(reason=f"the body has not come within {BODY_S:g} s")) from None
    except (web.HTTPException, ConnectionError):
        raise
    except Exception as error:
        said = "the body cannot be read as its headers say it is"
        raise _last(request, web.HTTPBadRequest(reason=said)) from error


def _last(request: web.Request, answer: web.HTTPException) -> web.HTTPException:
    """The last answer of its connection: nothing more of the body is read."""
    request.content.feed_eof()
    answer.force_close()
    return answer
