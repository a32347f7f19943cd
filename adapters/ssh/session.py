"""One command on an open connection: the channel's own side of it, and the text it leaves behind.

Knows neither how connections are made nor what a step means. It keeps the last 4 KiB of standard error,
whatever the node sends, and never blocks on more.
"""

import asyncio
import unicodedata
from typing import Final

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR

KEPT_BYTES: Final = 4 * 1024  # more than is ever shown; all of it may be made to cost us time
MESSAGE_CHARACTERS: Final = 300
_CLOSE_GRACE_S: Final = 0.25


class StepSession(asyncssh.SSHClientSession[bytes]):
    """What is known of one command: `opened`, `exit_status`, `closed`, and `ended` to wait for."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.opened = False
        self.closed = False
        self.exit_status: int | None = None
        self._stderr = bytearray()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Note that the channel is open: from here on the command may have been sent."""
        self.opened = True

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Keep the end of standard error; standard output says nothing that anybody waits for."""
        if datatype == EXTENDED_DATA_STDERR:
            self._stderr += data
            del self._stderr[:-KEPT_BYTES]

    def exit_status_received(self, status: int) -> None:
        """Note the exit status, and end shortly even if something on the node holds the channel open."""
        self.exit_status = status
        asyncio.get_running_loop().call_later(_CLOSE_GRACE_S, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: the channel is closed, orderly or with its connection."""
        self.closed = exc is None
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def last_words(self) -> str:
        """Give the last line of standard error, fit to be shown."""
        text = self._stderr.decode("utf-8", errors="replace")
        return next(filter(None, map(plain, reversed(text.split("\n")))), "")


def plain(text: str) -> str:
    """Strip what could move a cursor, hide or reorder text: every control, format and separator character."""
    kept = (c for c in text if unicodedata.category(c)[0] != "C" and unicodedata.category(c) not in {"Zl", "Zp"})
    return "".join(kept).strip()[:MESSAGE_CHARACTERS]
