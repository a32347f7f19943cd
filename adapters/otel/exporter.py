"""The span exporter: follows the journal and sends what it says over OTLP/HTTP, in order, until it is acknowledged.

    exporter = SpanExporter(endpoint, read=span_reader.after, read_cursor=…, write_cursor=…)
    engine.listeners.append(lambda decision: exporter.notify())
    await exporter.run()          # a trunk service; ends only by cancellation

`read(cursor, limit)` gives the next spans and the turn up to which nothing is missing (`adapters.postgres.spans`);
`read_cursor()` and `write_cursor(jseq)` keep the place in Postgres. The cursor moves on success only, so a killed
process loses no span; one sent twice is the same span, byte for byte. With the receiver down spans wait where they
are, and nothing else changes (R3). Without an endpoint it does nothing.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import aiohttp
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from adapters.otel.encoding import SpanRow, encode_rows
from amends.values.backoff import Backoff
from amends.values.errors import TurnFailed, Unavailable

log = logging.getLogger("amends.spans")
BATCH = 512
POLL_S = 1.0
LINGER_S = 0.05  # commits come in bursts: a moment's wait makes one request of many
TIMEOUT_S = 10.0
SAY_AGAIN_S = 300.0  # while spans wait, the log says so this often
REFUSED = (400, 413)  # of the spans' own making: not to be sent again as they are
BACKOFF = Backoff(200, 15_000)
KEEP_PLACE_EVERY = 20_000  # turns without spans after which the place is kept all the same

T = TypeVar("T")
Read = Callable[[int, int], Awaitable[tuple[Sequence[SpanRow], int]]]


class NotAccepted(Exception):
    """The receiver did not take the spans; the message says why. They stay where they are.

    `for_good`: the same request would be refused again (OTLP forbids to repeat it), a smaller one perhaps not.
    """

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


def traces_url(endpoint: str) -> str:
    """Where spans go: the endpoint, with `/v1/traces` appended unless it is there; "" for no endpoint."""
    base = (endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")).rstrip("/")
    return base if not base or base.endswith("/v1/traces") else f"{base}/v1/traces"


class SpanExporter:
    """What `cursor` and `kept` (its copy in Postgres), the counts, `last_error` and `up` say is there to be shown."""

    def __init__(
        self,
        endpoint: str,
        *,
        read: Read,
        read_cursor: Callable[[], Awaitable[int]],
        write_cursor: Callable[[int], Awaitable[Any]],
        backoff: Backoff = BACKOFF,
        batch: int = BATCH,
    ) -> None:
        self.url = traces_url(endpoint)
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
        if not self.url:
            await asyncio.get_running_loop().create_future()  # for ever, at no cost
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
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
        headers = {"Content-Type": "application/x-protobuf"}
        async with session.post(self.url, data=body, headers=headers, allow_redirects=False) as response:
            answer = await response.content.read(4096)
            if response.status // 100 != 2:
                text = answer[:200].decode(errors="replace")
                raise NotAccepted(f"{response.status} {text}".strip(), for_good=response.status in REFUSED)
        self._note_rejected(answer)

    def _note_rejected(self, answer: bytes) -> None:
        """A receiver that took the request may still reject spans for good; OTLP forbids to send them again."""
        try:
            partial = ExportTraceServiceResponse.FromString(answer).partial_success
        except DecodeError:
            return
        if partial.rejected_spans:
            self.rejected += partial.rejected_spans
            log.error("the receiver rejects %d spans: %s", partial.rejected_spans, partial.error_message)

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
                await asyncio.sleep(self._backoff.delay_us(self.failures, "spans") / 1e6)
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
