"""Heartbeats on the wire: taken out of what their connection reads by the piece, before the driver looks at it.

The driver makes a message, a place in a queue and a callback of each, which costs more than all that is done with a
heartbeat. What is no plain message of theirs is left to it, as is everything about the connection.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

SUBJECT: Final = "amends.v1.hb.*"
# As the server writes it: the subject, our subscription, where somebody wants an answer, and how many bytes follow.
_HEAD: Final = re.compile(rb"MSG amends\.v1\.hb\.([^ \r\n]+) \d+ (?:[^ \r\n]+ )?(\d+)\r\n")
_BEGIN: Final = b"MSG amends.v1.hb."
_LONGEST: Final = 4096  # of a line, as the driver has it
Beat = tuple[bytes, bytes]  # the last word of the subject, and what it says
Take = Callable[[Sequence[Beat]], None]


class BeatParser(Parser):
    """The driver's parser, but for heartbeats: those of one piece are handed to `take` together."""

    def __init__(self, client: Any, take: Take) -> None:
        self._take, self._rest = take, b""
        super().__init__(client)

    def reset(self) -> None:
        """Another connection: nothing of the last one's is left."""
        self._rest = b""
        super().reset()

    async def parse(self, data: bytes = b"") -> None:
        """See the driver."""
        data, self._rest = self._rest + data, b""
        while data:
            if self.state == AWAITING_CONTROL_LINE and not self.buf:
                beats, end = taken_out(data)
                if beats:
                    self._take(beats)
                    data = data[end:]
                if not data:
                    return
                if is_begun(data):
                    self._rest = data
                    return
            # One line of another kind, or the rest of what the driver has begun: the next one may be ours again.
            cut = data.find(_BEGIN, 1)
            piece, data = (data, b"") if cut < 0 else (data[:cut], data[cut:])
            await super().parse(piece)
            if self.state == AWAITING_CONTROL_LINE and self.buf and is_begun(bytes(self.buf)):
                data = bytes(self.buf) + data
                self.buf.clear()


def taken_out(data: bytes) -> tuple[list[Beat], int]:
    """The whole heartbeats at its beginning, and where they end."""
    beats: list[Beat] = []
    end, size, match = 0, len(data), _HEAD.match
    while (head := match(data, end)) is not None:
        begin = head.end()
        behind = begin + int(head[2])
        if behind + 2 > size:
            break
        beats.append((head[1], data[begin:behind]))
        end = behind + 2
    return beats, end


def is_begun(data: bytes) -> bool:
    """Whether this is the beginning of a heartbeat that has not come in full."""
    if _HEAD.match(data) is not None:
        return True
    line = data[:_LONGEST]
    return b"\r\n" not in line and len(data) < _LONGEST and (line.startswith(_BEGIN) or _BEGIN.startswith(line))
