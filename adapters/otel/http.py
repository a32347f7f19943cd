"""OTLP over HTTP: spans as protobuf to a collector, and what it says in return."""

import asyncio
import gzip
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Self

import aiohttp
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from adapters.otel.encoding import encode_rows
from adapters.otel.environment import Target
from amends.ports.spans import NotAccepted, SpanRow, Taken

REFUSED: Final = (400, 413)  # of the spans' own making: not to be sent again as they are
ASKS_TO_WAIT: Final = (429, 503)
LONGEST_WAIT_S: Final = 3600.0  # that a receiver may ask for


class OtlpHttp:
    """Implements `amends.ports.spans.SpanReceiver` for one target, while it is entered."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def __aenter__(self) -> Self:
        timeout_ms = self._target.timeout_ms
        timeout = aiohttp.ClientTimeout(total=None if timeout_ms is None else timeout_ms / 1000)
        self._session = aiohttp.ClientSession(timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def take(self, rows: Sequence[SpanRow]) -> Taken:
        """See `SpanReceiver.take`."""
        body = await encode_rows(rows)
        headers = {**self._target.headers, "Content-Type": "application/x-protobuf"}
        if self._target.gzip:
            body = await asyncio.to_thread(gzip.compress, body, mtime=0)
            headers["Content-Encoding"] = "gzip"
        try:
            return await self._post(body, headers)
        except aiohttp.ClientError as error:
            if isinstance(error, OSError):
                raise
            raise NotAccepted(f"{type(error).__name__}: {error}") from error

    async def _post(self, body: bytes, headers: dict[str, str]) -> Taken:
        url = self._target.url
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            answer = await response.content.read(4096)
            if response.status // 100 != 2:
                wait_s = _wait_s(response.headers.get("Retry-After", "")) if response.status in ASKS_TO_WAIT else 0.0
                raise NotAccepted(
                    self._shown(response.status, answer), for_good=response.status in REFUSED, wait_s=wait_s
                )
        return self._taken(answer)

    def _shown(self, status: int, answer: bytes) -> str:
        """What a receiver said, fit for the log: one that repeats our headers must not put a token there."""
        return f"{status} {self._safe(answer.decode(errors='replace'))}".strip()

    def _safe(self, text: str) -> str:
        """The beginning of a text; nothing of one that has the beginning of a header's value anywhere in it."""
        words = [word for value in self._target.headers.values() for word in re.split(r"[\s=,;]+", value)]
        repeats = any(word[:8] in text for word in words if len(word) >= 8)
        return "(it repeats a header)" if repeats else text[:200]

    def _taken(self, answer: bytes) -> Taken:
        """A receiver that took the request may still reject spans for good; OTLP forbids to send them again."""
        try:
            partial = ExportTraceServiceResponse.FromString(answer).partial_success
        except DecodeError:
            return Taken()
        return Taken(partial.rejected_spans, self._safe(partial.error_message))


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
