"""A TCP proxy between a client and one server: switched into a fault while it runs, it says what it has really done.

A fault is there for connections that stand and for new ones. A connection that has lost bytes stays black in that
direction after the fault, as behind a firewall that has forgotten it, unless `lift` is told to reset those; an end that
closes is not heard of on the other side either.
"""

import asyncio
import socket
import struct
from collections import Counter, deque
from collections.abc import Iterator
from typing import Literal

from adapters.embedded.ports import HOST, free_port

Fault = Literal["", "latency", "blackhole out", "blackhole back", "reset", "slicing", "cut before", "cut after"]
COMMIT = b'"jseq":'  # rows of a batch: nothing else is asked of Postgres with them
SLICE_S = 0.001
_AT_ONCE = struct.pack("ii", 1, 0)  # a close is a reset


class Proxy:
    """Listens on `port`; `target` is a port of this machine or the path of a socket.

    `did` counts what each fault has come to: delayed reads, swallowed bytes, reset connections, written slices, commits
    cut off before they arrived or before their reply did. `hit` counts the connections that each has met.
    """

    def __init__(self, target: int | str, *, latency_s: float = 0.1) -> None:
        self.target, self.latency_s, self.port = target, latency_s, free_port()
        self.fault: Fault = ""
        self.did: Counter[Fault] = Counter()
        self.hit: Counter[Fault] = Counter()
        self.left = 0  # how often a cut is still to be made; below zero: until it is lifted
        self.links: set[_Link] = set()
        self.opening: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self).out, HOST, self.port, reuse_address=True)

    async def stop(self) -> None:
        """End every connection, and wait until they have ended."""
        self._server.close()
        for task in self.opening:
            task.cancel()
        await asyncio.gather(*self.opening, return_exceptions=True)
        self._reset(self.links)
        while self.links:
            await asyncio.sleep(0)
        await self._server.wait_closed()

    def strike(self, fault: Fault, times: int = -1) -> None:
        """From now on; a cut that is to be made so many times ends itself then."""
        self.fault, self.left = fault, times
        if fault == "reset":
            for link in self.links:
                link.note(fault)
            self._reset(self.links)

    def lift(self, *, reset_holed: bool = False) -> None:
        """No fault any more."""
        self.fault = ""
        if reset_holed:
            self._reset({link for link in self.links if link.out.black or link.back.black})

    def _reset(self, links: "set[_Link]") -> None:
        for link in list(links):
            link.reset()


class _Link:
    """One connection through the proxy: a way out, to the server, and one back."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.out, self.back = _Way(self, "blackhole out"), _Way(self, "blackhole back")
        self.out.other, self.back.other = self.back, self.out
        self.cutting = False
        self._met: set[Fault] = set()

    def accepted(self) -> None:
        proxy = self.proxy
        proxy.links.add(self)
        task = asyncio.create_task(self._open())
        proxy.opening.add(task)
        task.add_done_callback(proxy.opening.discard)

    async def _open(self) -> None:
        loop, target = asyncio.get_running_loop(), self.proxy.target
        try:
            if isinstance(target, str):
                await loop.create_unix_connection(lambda: self.back, target)
            else:
                await loop.create_connection(lambda: self.back, HOST, target)
        except OSError:
            self.reset()  # nobody is there
        finally:
            self.back.closed = self.back.transport is None
            self.ended()
        self.out.read(True)

    def note(self, fault: Fault, count: int = 1) -> None:
        """This connection has met the fault."""
        self.proxy.did[fault] += count
        self.proxy.hit[fault] += fault not in self._met
        self._met.add(fault)

    def cut(self, fault: Fault) -> None:
        """Here ends a commit."""
        self.note(fault)
        self.proxy.left -= 1
        if self.proxy.left == 0:
            self.proxy.fault = ""
        self.reset()

    def reset(self) -> None:
        for way in (self.out, self.back):
            way.abort()

    def ended(self) -> None:
        if self.out.closed and self.back.closed:
            self.proxy.links.discard(self)


class _Way(asyncio.Protocol):
    """What is read at one end of a connection and written at the other. `black`: nothing passes any more."""

    other: "_Way"

    def __init__(self, link: _Link, blackhole: Fault) -> None:
        self._link = link
        self._blackhole: Fault = blackhole
        self.black = self.closed = False
        self.transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, bytes]] = deque()  # when each is to go on
        self._timer: asyncio.TimerHandle | None = None

    # --- asyncio's ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self is self._link.out:
            transport.pause_reading()  # until there is somebody to write to
            self._link.accepted()
        elif self.other.closed:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        link, fault = self._link, self._link.proxy.fault
        if self.black or fault == self._blackhole:
            self.black = True
            link.note(self._blackhole, len(data))
        elif link.cutting and self is link.back:
            link.cut("cut after")
        elif fault == "reset":
            link.note(fault)
            link.reset()
        elif fault == "cut before" and self is link.out and COMMIT in data:
            link.cut("cut before")
        elif fault == "latency":
            link.note(fault)
            self._later([data], link.proxy.latency_s)
        elif fault == "slicing":
            pieces = list(slices(data))
            link.note(fault, len(pieces))
            self._later(pieces, 0.0)
        else:
            link.cutting = link.cutting or (fault == "cut after" and self is link.out and COMMIT in data)
            self._pass(data)

    def pause_writing(self) -> None:
        self.other.read(False)

    def resume_writing(self) -> None:
        self.other.read(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.transport = None
        if not (self.black or self._link.proxy.fault == self._blackhole or self._waiting):
            self.other.close()
        self._link.ended()

    # --- passing on -----------------------------------------------------------------------------------

    def read(self, on: bool) -> None:
        if self.transport is not None and not self.transport.is_closing():
            if on:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """End at once, on TCP with a reset."""
        self._drop()
        if self.transport is not None:
            if (own := self.transport.get_extra_info("socket")) is not None and own.family != socket.AF_UNIX:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.transport.abort()

    def _pass(self, data: bytes) -> None:
        if self._waiting:
            self._later([data], 0.0)
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if (to := self.other.transport) is not None and not to.is_closing():
            to.write(data)

    def _later(self, pieces: list[bytes], after_s: float) -> None:
        due = asyncio.get_running_loop().time() + after_s
        if self._waiting:
            due = max(due, self._waiting[-1][0])  # nothing overtakes
        self._waiting.extend((due + SLICE_S * place, piece) for place, piece in enumerate(pieces))
        self._arm()

    def _arm(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = asyncio.get_running_loop().call_at(self._waiting[0][0], self._next)

    def _next(self) -> None:
        self._timer = None
        self._write(self._waiting.popleft()[1])
        if not self._waiting and self.closed:
            self.other.close()
        self._arm()

    def _drop(self) -> None:
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def slices(data: bytes) -> Iterator[bytes]:
    """Pieces of 1, 2, 3 … bytes: every length, and the ends of messages fall anywhere."""
    begin, size = 0, 1
    while begin < len(data):
        yield data[begin : begin + size]
        begin, size = begin + size, size + 1
