"""A small OTLP/HTTP receiver: takes protobuf on /v1/traces, keeps what came, and fails when told to."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from adapters.embedded.ports import free_port
from adapters.otel.otlp_file import spans_of_otlp


class Receiver:
    """`spans` are rows in the order of arrival; `status` is what is answered, at most `room` spans a request."""

    def __init__(self) -> None:
        self.status, self.room = 200, 1_000_000
        self.bodies: list[bytes] = []
        self.refused = 0
        self.rejects = 0
        self.retry_after = ""
        self.token = ""  # repeated in refusals, as a careless receiver may
        self.headers: Mapping[str, str] = {}  # of the newest request
        self._runner: web.AppRunner | None = None
        self.poison = ""  # the name of spans that are answered 400
        self.port = free_port()  # the same again after a stop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[dict[str, Any]]:
        return [span for body in self.bodies for span in spans_of_otlp(ExportTraceServiceRequest.FromString(body))]

    def copies(self) -> Counter[tuple[str, str]]:
        return Counter((span["trace_id"], span["span_id"]) for span in self.spans)

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        self.headers = request.headers
        spans = spans_of_otlp(ExportTraceServiceRequest.FromString(body))
        status = 413 if len(spans) > self.room else self.status
        if any(span["name"] == self.poison for span in spans):
            status = 400
        if status != 200:
            self.refused += 1
            waits = {"Retry-After": self.retry_after} if self.retry_after else {}
            return web.Response(status=status, text=f"not now {self.token}".strip(), headers=waits)
        self.bodies.append(body)
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = self.rejects
        return web.Response(body=answer.SerializeToString(), content_type="application/x-protobuf")
