"""One command on an open connection: the channel's own side of it, and the text it leaves behind.

Knows neither how connections are made nor what a step means. Whatever the node sends, it keeps the last 4 KiB of
either stream and the line it is in, and never blocks on more.
"""

import asyncio
import unicodedata
from typing import Final

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR

KEPT_BYTES: Final = 4 * 1024  # more than is ever shown; all of it may be made to cost us time
MESSAGE_CHARACTERS: Final = 800
NOISE_CHARACTERS: Final = 300
_BETWEEN_LINES: Final = "; "
_CLOSE_GRACE_S: Final = 0.25
_LINE_GRACE_S: Final = 1.0  # OpenSSH may send the exit status before the last of the output


class StepSession(asyncssh.SSHClientSession[bytes]):
    """What is known of one command: `opened`, `said_done`, `exit_status`, `closed`, and `ended` to wait for.

    `said_done`: standard output held exactly the line `done_line`, whatever stood before it.
    """

    def __init__(self, done_line: bytes) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.opened = False
        self.closed = False
        self.said_done = False
        self.exit_status: int | None = None
        self._done_line = done_line
        self._line = b""  # the line that standard output is in, as far as it can still matter
        self._stdout = bytearray()
        self._stderr = bytearray()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Note that the channel is open: from here on the command may have been sent."""
        self.opened = True

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Keep the end of both streams, and look for the one line of standard output that counts."""
        kept = self._stderr if datatype == EXTENDED_DATA_STDERR else self._stdout
        kept += data
        del kept[:-KEPT_BYTES]
        if datatype is None and not self.said_done:
            *lines, line = (self._line + data).split(b"\n")
            self.said_done = self._done_line in lines
            self._line = line[: len(self._done_line) + 1]  # one that is longer is not it, however it goes on
            if self.said_done and self.exit_status is not None:
                self._end_within(_CLOSE_GRACE_S)

    def eof_received(self) -> bool:
        """Take the last line for a line although nothing ends it; the channel is not kept half open."""
        self.said_done = self.said_done or self._line == self._done_line
        return False

    def exit_status_received(self, status: int) -> None:
        """Note the exit status, and end shortly even if something on the node holds the channel open."""
        self.exit_status = status
        self._end_within(_LINE_GRACE_S if status == 0 and not self.said_done else _CLOSE_GRACE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: the channel is closed, orderly or with its connection."""
        self.closed = exc is None
        self._end()

    def _end_within(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._end)

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def last_words(self) -> str:
        """Give the end of standard error, its lines in a row and fit to be shown: the tools' own words come first."""
        return _in_a_row(self._stderr)[-MESSAGE_CHARACTERS:]

    def noise(self) -> str:
        """Give the end of standard output likewise; a script prints nothing that a person needs to read."""
        return _in_a_row(self._stdout)[-NOISE_CHARACTERS:]


def _in_a_row(kept: bytearray) -> str:
    text = kept.decode("utf-8", errors="replace")
    return _BETWEEN_LINES.join(filter(None, map(_visible, text.split("\n"))))


def plain(text: str) -> str:
    """Strip what could move a cursor, hide or reorder text: every control, format and separator character."""
    return _visible(text)[:MESSAGE_CHARACTERS]


def _visible(text: str) -> str:
    kept = (c for c in text if unicodedata.category(c)[0] != "C" and unicodedata.category(c) not in {"Zl", "Zp"})
    return "".join(kept).strip()
