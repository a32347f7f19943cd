"""The span exporter: follows the journal and sends what it says over OTLP/HTTP, in order, until it is acknowledged.

    exporter = SpanExporter(target, read=span_reader.after, read_cursor=…, write_cursor=…)
    engine.listeners.append(lambda decision: exporter.notify())
    await exporter.run()          # a trunk service; ends only by cancellation

`read(cursor, limit)` gives the next spans and the turn up to which nothing is missing (`adapters.postgres.spans`);
`read_cursor()` and `write_cursor(jseq)` keep the place in Postgres. The cursor moves on success only, so a killed
process loses no span; one sent twice is the same span, byte for byte. With the receiver down spans wait where they
are, and nothing else changes (S3). Without an address it does nothing.
"""

import asyncio
import gzip
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from adapters.otel.encoding import SpanRow, encode_rows
from adapters.otel.environment import Target
from amends.values.backoff import Backoff
from amends.values.errors import TurnFailed, Unavailable

log = logging.getLogger("amends.spans")
BATCH = 512
POLL_S = 1.0
LINGER_S = 0.05  # commits come in bursts: a moment's wait makes one request of many
SAY_AGAIN_S = 300.0  # while spans wait, the log says so this often
REFUSED = (400, 413)  # of the spans' own making: not to be sent again as they are
ASKS_TO_WAIT = (429, 503)
LONGEST_WAIT_S = 3600.0  # that a receiver may ask for
BACKOFF = Backoff(200, 15_000)
KEEP_PLACE_EVERY = 20_000  # turns without spans after which the place is kept all the same

T = TypeVar("T")
Read = Callable[[int, int], Awaitable[tuple[Sequence[SpanRow], int]]]


class NotAccepted(Exception):
    """The receiver did not take the spans; the message says why. They stay where they are.

    `for_good`: the same request would be refused again (OTLP forbids to repeat it), a smaller one perhaps not.
    `wait_s`: the receiver does not want to be asked again earlier.
    """

    def __init__(self, message: str, *, for_good: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.for_good, self.wait_s = for_good, wait_s


class SpanExporter:
    """What `cursor` and `kept` (its copy in Postgres), the counts, `last_error` and `up` say is there to be shown."""

    def __init__(
        self,
        target: Target,
        *,
        read: Read,
        read_cursor: Callable[[], Awaitable[int]],
        write_cursor: Callable[[int], Awaitable[Any]],
        backoff: Backoff = BACKOFF,
        batch: int = BATCH,
    ) -> None:
        self._target = target
        self._read, self._read_cursor, self._write_cursor = read, read_cursor, write_cursor
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
        if not self._target.url:
            await asyncio.get_running_loop().create_future()  # for ever, at no cost
        timeout_ms = self._target.timeout_ms
        timeout = aiohttp.ClientTimeout(total=None if timeout_ms is None else timeout_ms / 1000)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            self.kept = self.cursor = await self._patiently(self._read_cursor)
            while True:
                self._wake.clear()
                sent = await self._patiently(lambda: self._step(session))
                if not sent:
                    await self._pause()
                if sent < self._batch // 2:
                    await asyncio.sleep(LINGER_S)

    async def _step(self, session: aiohttp.ClientSession) -> int:
        """One batch; how many spans it had."""
        rows, upto = await self._read(self.cursor, self._batch)
        if rows:
            refused = await self._send(session, rows)
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
        return len(rows)

    async def _send(self, session: aiohttp.ClientSession, rows: Sequence[SpanRow]) -> list[NotAccepted]:
        """Send them, divided as far as the receiver needs it; the refusal of each span that it takes in no way."""
        try:
            await self._post(session, await encode_rows(rows))
        except NotAccepted as error:
            if not error.for_good:
                raise
            if len(rows) == 1:
                span = rows[0]
                what = f"span {span['span_id']} ({span['name']}) of trace {span['trace_id']}: {error}"
                return [NotAccepted(what, for_good=True)]
            half = len(rows) // 2
            return await self._send(session, rows[:half]) + await self._send(session, rows[half:])
        return []

    def _pass_over(self, refused: Sequence[NotAccepted]) -> None:
        """Nothing behind a span that is refused for good waits for it."""
        self.rejected += len(refused)
        for error in refused:
            log.error("the receiver refuses a span for good: %s", error)

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> None:
        headers = {**self._target.headers, "Content-Type": "application/x-protobuf"}
        if self._target.gzip:
            body = await asyncio.to_thread(gzip.compress, body, mtime=0)
            headers["Content-Encoding"] = "gzip"
        async with session.post(self._target.url, data=body, headers=headers, allow_redirects=False) as response:
            answer = await response.content.read(4096)
            if response.status // 100 != 2:
                wait_s = _wait_s(response.headers.get("Retry-After", "")) if response.status in ASKS_TO_WAIT else 0.0
                raise NotAccepted(
                    self._shown(response.status, answer), for_good=response.status in REFUSED, wait_s=wait_s
                )
        self._note_rejected(answer)

    def _shown(self, status: int, answer: bytes) -> str:
        """What a receiver said, fit for the log: one that repeats our headers must not put a token there."""
        return f"{status} {self._safe(answer.decode(errors='replace'))}".strip()

    def _safe(self, text: str) -> str:
        """The beginning of a text; nothing of one that has the beginning of a header's value anywhere in it."""
        words = [word for value in self._target.headers.values() for word in re.split(r"[\s=,;]+", value)]
        repeats = any(word[:8] in text for word in words if len(word) >= 8)
        return "(it repeats a header)" if repeats else text[:200]

    def _note_rejected(self, answer: bytes) -> None:
        """A receiver that took the request may still reject spans for good; OTLP forbids to send them again."""
        try:
            partial = ExportTraceServiceResponse.FromString(answer).partial_success
        except DecodeError:
            return
        if partial.rejected_spans:
            self.rejected += partial.rejected_spans
            log.error("the receiver rejects %d spans: %s", partial.rejected_spans, self._safe(partial.error_message))

    async def _patiently(self, action: Callable[[], Awaitable[T]]) -> T:
        """Do it, however long the receiver or Postgres is away."""
        said = 0.0
        while True:
            try:
                done = await action()
            except (NotAccepted, Unavailable, TurnFailed, aiohttp.ClientError, OSError, TimeoutError) as error:
                self.failures += 1
                self.last_error = f"{type(error).__name__}: {error}"
                now = time.monotonic()
                if self.failures == 1 or now - said >= SAY_AGAIN_S:
                    log.warning("spans wait, %d attempts: %s", self.failures, self.last_error)
                    said = now
                asked_s = error.wait_s if isinstance(error, NotAccepted) else 0.0
                await asyncio.sleep(max(asked_s, self._backoff.delay_us(self.failures, "spans") / 1e6))
            else:
                if self.failures:
                    log.info("spans go out again after %d failed attempts", self.failures)
                self.failures, self.last_error = 0, ""
                return done

    async def _pause(self) -> None:
        """Until something commits, or for a poll."""
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return


def _wait_s(retry_after: str) -> float:
    """`Retry-After` in seconds, as a number or as a date; 0 for what is neither."""
    if retry_after.strip().isascii() and retry_after.strip().isdigit():
        return min(float(retry_after[:9]), LONGEST_WAIT_S)
    try:
        until = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max(0.0, (until - datetime.now(UTC)).total_seconds()), LONGEST_WAIT_S)
