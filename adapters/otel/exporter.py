"""The span exporter: follows the journal and sends what it says to a receiver, in order, until it is acknowledged.

    exporter = SpanExporter(OtlpHttp(target), read=span_reader.after, read_cursor=…, write_cursor=…)
    engine.listeners.append(lambda decision: exporter.notify())
    await exporter.run()          # a trunk service; ends only by cancellation

`read(cursor, limit)` gives the next spans and the turn up to which nothing is missing (`adapters.postgres.spans`);
`read_cursor()` and `write_cursor(jseq)` keep the place in Postgres. The cursor moves on success only, so a killed
process loses no span; one sent twice is the same span, byte for byte. With the receiver down spans wait where they
are, and nothing else changes (S3). Without a receiver it does nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from amends.ports.spans import NotAccepted, SpanReceiver, SpanRow
from amends.values.backoff import Backoff
from amends.values.errors import TurnFailed, Unavailable

log = logging.getLogger("amends.spans")
BATCH = 2048  # about 1 MiB of OTLP; a receiver that takes less says so, and gets less
POLL_S = 1.0
LINGER_S = 0.05  # commits come in bursts: a moment's wait makes one request of many
SAY_AGAIN_S = 300.0  # while spans wait, the log says so this often
BACKOFF = Backoff(200, 15_000)
KEEP_PLACE_EVERY = 20_000  # turns without spans after which the place is kept all the same

T = TypeVar("T")
Read = Callable[[int, int], Awaitable[tuple[Sequence[SpanRow], int]]]


class SpanExporter:
    """What `cursor` and `kept` (its copy in Postgres), the counts, `last_error` and `up` say is there to be shown."""

    def __init__(
        self,
        receiver: AbstractAsyncContextManager[SpanReceiver] | None,
        *,
        read: Read,
        read_cursor: Callable[[], Awaitable[int]],
        write_cursor: Callable[[int], Awaitable[Any]],
        tell: Callable[[], None] = lambda: None,
        backoff: Backoff = BACKOFF,
        batch: int = BATCH,
    ) -> None:
        self._receiver = receiver
        self._read, self._read_cursor, self._write_cursor = read, read_cursor, write_cursor
        self._tell = tell  # is called when what is there to be shown has changed
        self._backoff, self._batch = backoff, batch
        self._wake = asyncio.Event()
        self.kept, self._owed = 0, False
        self.cursor = 0
        self.exported = self.rejected = self.failures = 0
        self.last_error = ""

    @property
    def up(self) -> bool:
        """Whether the last attempt went well (or none was needed)."""
        return not self.failures

    def notify(self) -> None:
        """Something has committed."""
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        if self._receiver is None:
            await asyncio.get_running_loop().create_future()  # for ever, at no cost
            return
        async with self._receiver as receiver:
            self.kept = self.cursor = await self._patiently(self._read_cursor)
            while True:
                self._wake.clear()
                sent = await self._patiently(lambda: self._step(receiver))
                if not sent:
                    await self._pause()
                if sent < self._batch // 2:
                    await asyncio.sleep(LINGER_S)

    async def _step(self, receiver: SpanReceiver) -> int:
        """One batch; how many spans it had."""
        before = self.cursor
        rows, upto = await self._read(before, self._batch)
        if rows:
            refused = await self._send(receiver, rows)
            if len(refused) == len(rows) and not self.exported:
                raise refused[0]  # it has never taken anything from us: that is no receiver, or not ours
            self._pass_over(refused)
            self.exported += len(rows) - len(refused)
            self._owed = True
        # What was acknowledged is not sent again by this process, even if keeping the place fails now.
        self.cursor = max(self.cursor, upto)
        if self._owed or self.cursor - self.kept >= KEEP_PLACE_EVERY:
            await self._write_cursor(self.cursor)
            self.kept, self._owed = self.cursor, False
        if self.cursor > before:
            self._tell()
        return len(rows)

    async def _send(self, receiver: SpanReceiver, rows: Sequence[SpanRow]) -> list[NotAccepted]:
        """Send them, divided as far as the receiver needs it; the refusal of each span that it takes in no way."""
        try:
            taken = await receiver.take(rows)
        except NotAccepted as error:
            if not error.for_good:
                raise
            if len(rows) == 1:
                span = rows[0]
                what = f"span {span['span_id']} ({span['name']}) of trace {span['trace_id']}: {error}"
                return [NotAccepted(what, for_good=True)]
            half = len(rows) // 2
            return await self._send(receiver, rows[:half]) + await self._send(receiver, rows[half:])
        if taken.rejected:
            self.rejected += taken.rejected
            log.error("the receiver rejects %d spans: %s", taken.rejected, taken.message)
        return []

    def _pass_over(self, refused: Sequence[NotAccepted]) -> None:
        """Nothing behind a span that is refused for good waits for it."""
        self.rejected += len(refused)
        for error in refused:
            log.error("the receiver refuses a span for good: %s", error)

    async def _patiently(self, action: Callable[[], Awaitable[T]]) -> T:
        """Do it, however long the receiver or Postgres is away."""
        said = 0.0
        while True:
            try:
                done = await action()
            except (NotAccepted, Unavailable, TurnFailed, OSError, TimeoutError) as error:
                self.failures += 1
                self.last_error = f"{type(error).__name__}: {error}"
                self._tell()
                now = asyncio.get_running_loop().time()
                if self.failures == 1 or now - said >= SAY_AGAIN_S:
                    log.warning("spans wait, %d attempts: %s", self.failures, self.last_error)
                    said = now
                asked_s = error.wait_s if isinstance(error, NotAccepted) else 0.0
                await asyncio.sleep(max(asked_s, self._backoff.delay_us(self.failures, "spans") / 1e6))
            else:
                if self.failures:
                    log.info("spans go out again after %d failed attempts", self.failures)
                    self.failures, self.last_error = 0, ""
                    self._tell()
                return done

    async def _pause(self) -> None:
        """Until something commits, or for a poll."""
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return
