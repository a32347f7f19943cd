"""The agents of many nodes as one process: `python -m benchmarks.figures.beats URL NODES`, told what to send in lines.

`send N`: the next N heartbeats, one after the other through the fleet, as fast as they go. `every S`: from now on each
node once in S seconds, evenly; with `but 3,17` the fourth and the 18th are silent. What a heartbeat says is as
long as an agent's, and made before: the cores are for who is measured.
"""

import asyncio
import sys
from urllib.parse import urlsplit

import msgspec
import uvloop

from adapters.nats.agent_messages import PROTO, Heartbeat
from benchmarks.figures.servers import words

TICK_S = 0.01
FIRST_US = 1_790_000_000_000_000


def boot_of(number: int) -> str:
    """The boot id of the node `b-<number>`; one that the database makes of a name."""
    return f"boot-b-{number}"


def frames(count: int) -> list[bytes]:
    """A heartbeat of each node, as a client publishes it."""
    made = []
    for number in range(1, count + 1):
        body = msgspec.json.encode(Heartbeat(boot_of(number), 100_000, FIRST_US, proto=PROTO))
        made.append(b"PUB amends.v1.hb.b-%d %d\r\n%b\r\n" % (number, len(body), body))
    return made


class Agents:
    """All of them, on one connection."""

    def __init__(self, made: list[bytes], writer: asyncio.StreamWriter) -> None:
        self._frames, self._writer, self._next = made, writer, 0
        self._beating: asyncio.Task[None] | None = None

    async def send(self, count: int) -> None:
        """The next so many."""
        while count:
            part = self._frames[self._next : self._next + count]
            self._writer.write(b"".join(part))
            self._next = (self._next + len(part)) % len(self._frames)
            count -= len(part)
        await self._writer.drain()

    def every(self, period_s: float, silent: set[int]) -> None:
        """Each node once in the period, from now on, but for those with these numbers."""
        self._frames = [frame for number, frame in enumerate(self._frames) if number not in silent]
        self._next = 0
        self._beating = asyncio.create_task(self._beat(period_s))

    async def _beat(self, period_s: float) -> None:
        clock = asyncio.get_running_loop().time
        began, sent, rate = clock(), 0, len(self._frames) / period_s
        while True:
            due = int((clock() - began) * rate) - sent
            await self.send(due)
            sent += due
            await asyncio.sleep(TICK_S)


async def act(url: str, count: int) -> None:
    """Do what one is told, until nobody tells any more."""
    found = urlsplit(url)
    reader, writer = await asyncio.open_connection(found.hostname, found.port)
    writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
    await reader.readuntil(b"PONG\r\n")
    agents = Agents(frames(count), writer)
    listening = asyncio.create_task(_pong(reader, writer))
    sys.stdout.write("true\n")
    sys.stdout.flush()
    async for line in words():
        match line.split():
            case ["send", number]:
                await agents.send(int(number))
            case ["every", period_s, "but", silent]:
                agents.every(float(period_s), set(map(int, silent.split(","))))
            case _:
                raise ValueError(line)
    listening.cancel()
    writer.close()


async def _pong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        if line == b"PING\r\n":
            writer.write(b"PONG\r\n")


if __name__ == "__main__":
    uvloop.run(act(sys.argv[1], int(sys.argv[2])))
