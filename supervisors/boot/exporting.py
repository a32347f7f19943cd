"""The exporter of spans as a process of its own, so that what it costs falls to another core than the runtime's.

`python -m supervisors.boot.exporting`, started by `supervisors.boot.spans`. Its first line of standard input says what
to do (`Orders`); each further line says that something has committed, and the end of them that the runtime has ended.
Each line that it prints says how far it is (`Progress`). It only reads: the runtime keeps the place.
"""

import asyncio
import os
import sys

import msgspec
import uvloop

from adapters.otel.exporter import SpanExporter
from adapters.otel.http import OtlpHttp
from adapters.postgres.reading import ReadSide
from adapters.postgres.spans import SpanReader
from supervisors import logs
from supervisors.boot.export_orders import Orders, Progress


class Exporting:
    """Follows its orders until its standard input ends."""

    def __init__(self, orders: Orders) -> None:
        self._place = orders.place
        self._reads = ReadSide(orders.dsn, role=orders.role)
        self._exporter = SpanExporter(
            OtlpHttp(orders.target), read=SpanReader(self._reads).after, read_cursor=self._begin,
            write_cursor=self._reached, tell=self._tell,
        )  # fmt: skip

    async def run(self, heard: asyncio.StreamReader) -> None:
        """Send until nobody is there any more who would keep the place."""
        task = asyncio.create_task(self._exporter.run(), name="export")
        listening = asyncio.create_task(self._listen(heard), name="listen")
        await asyncio.wait((task, listening), return_when=asyncio.FIRST_COMPLETED)
        for each in (task, listening):
            each.cancel()
        await asyncio.gather(task, listening, return_exceptions=True)
        await self._reads.aclose()
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def _listen(self, heard: asyncio.StreamReader) -> None:
        while await heard.readline():
            self._exporter.notify()

    async def _begin(self) -> int:
        return self._place

    async def _reached(self, jseq: int) -> None:
        self._place = jseq

    def _tell(self) -> None:
        it = self._exporter
        told = Progress(it.cursor, self._place, it.exported, it.rejected, it.failures, it.last_error)
        sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
        sys.stdout.buffer.flush()


async def main() -> None:
    """From standard input to standard output."""
    heard = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(heard), sys.stdin)
    first = await heard.readline()
    if first:
        await Exporting(msgspec.json.decode(first, type=Orders)).run(heard)


if __name__ == "__main__":
    logs.configure(os.environ)
    uvloop.run(main())
