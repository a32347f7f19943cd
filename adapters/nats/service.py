"""The command service: every subject of the API as an endpoint of the NATS service `amends`, with its schemas.

Requests run side by side, so many of each caller; what is above that is refused with 429 and does not queue.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.micro.request import Request
from nats.micro.service import ServiceConfig

from adapters.nats.answers import Answers, GuardedService
from amends.runtime.requests import Endpoint, Entry, Reply, Requests
from amends.values.errors import CODES
from amends.values.histogram import Histogram
from amends.values.text import printable

log = logging.getLogger("amends.service")
PREFIX = "amends.v1."
HEADERS_BYTES = 1024  # of a reply: the code and at most 200 characters of text
_encode = msgspec.json.Encoder().encode


class CommandService:
    """Serves endpoints until stopped."""

    def __init__(
        self, client: Client, requests: Requests, endpoints: Sequence[Endpoint], version: str, answers: Answers,
        reply_data: Callable[[Endpoint], dict[str, Any]] = lambda endpoint: {"type": "object"}, *,
        queue_group: str = "amends",
    ) -> None:  # fmt: skip
        self._queue_group = queue_group  # of the epoch: a replaced runtime takes nobody's request
        self._client, self._requests, self._endpoints, self._answers = client, requests, endpoints, answers
        self._errors: Counter[str] = Counter()
        self._reply_data = reply_data  # the JSON Schema of an ok reply's `data`
        self._version = version
        self._service: GuardedService | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.took = {role: Histogram() for role in {endpoint.role for endpoint in endpoints}}

    async def start(self) -> None:
        """Subscribe every endpoint; from here on commands are taken."""
        config = ServiceConfig(
            name="amends", version=self._version, description="Rentals that make amends",
            queue_group=self._queue_group,
        )  # fmt: skip
        self._service = GuardedService(self._client, config, self._answers, self._errors)
        await self._service.start()
        for endpoint in self._endpoints:
            for subject in subjects(endpoint):
                await self._service.add_endpoint(
                    name=subject.replace(".*", "-of").replace(".", "-"), subject=PREFIX + subject,
                    handler=self._handler(endpoint), metadata=schemas(endpoint, self._reply_data(endpoint)),
                )  # fmt: skip
        await self._client.flush()

    async def stop(self, timeout_s: float) -> None:
        """Take no more; answer what is under way, within `timeout_s`."""
        if self._service is not None and self._client.is_connected:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._service.stop()
            except (TimeoutError, NatsError) as error:
                log.warning("the service did not unsubscribe cleanly: %s", error)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)
        for task in set(self._tasks):
            task.cancel()

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._tasks)

    def _handler(self, endpoint: Endpoint) -> "Callable[[Request], Any]":
        async def handle(request: Request) -> None:
            if not self._answers.takes(request.subject, request._msg.reply):  # noqa: SLF001 - the library hides it
                return
            headers = {name.title(): value for name, value in (request.headers or {}).items()}
            entry = self._requests.enter(endpoint, headers)
            if isinstance(entry, Reply):
                await self._send(request, entry)
                await asyncio.sleep(0)  # thousands to be refused come at once: others have the loop between them
                return
            task = asyncio.create_task(self._answer(endpoint, request, headers, entry))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return handle

    async def _answer(self, endpoint: Endpoint, request: Request, headers: dict[str, str], entry: Entry) -> None:
        began = time.perf_counter()
        named = request.subject.removeprefix(PREFIX + endpoint.subject).removeprefix(".")
        reply = await self._requests.handle(endpoint, request.data, headers, entry, named)
        changes = endpoint.answer is None and reply.body["ok"]  # what only reads, or is refused, has no span to lead to
        trace_id = str(reply.body.get("trace_id", "")) if changes else ""
        self.took[endpoint.role].observe(time.perf_counter() - began, trace_id)
        await self._send(request, reply)

    async def _send(self, request: Request, reply: Reply) -> None:
        if not reply.body["ok"]:
            self._errors[request.subject] += 1
        if self._answers.silent():
            return
        data, room = _encode(reply.body), self._client.max_payload - HEADERS_BYTES
        if len(data) > room:
            reply = self._requests.too_large(reply, room)
            data = _encode(reply.body)
        try:
            await _respond(request, reply, data)
        except (NatsError, ValueError, OSError) as error:
            log.info("a reply on %s could not be sent: %s", request.subject, error)


def subjects(endpoint: Endpoint) -> list[str]:
    """Those it is served on, without their prefix: a command to an entity that exists also with its key at the end."""
    return [endpoint.subject, *([f"{endpoint.subject}.*"] if endpoint.keyed else [])]


async def _respond(request: Request, reply: Reply, data: bytes) -> None:
    error = reply.error
    code = error.code if error is not None else reply.body.get("error", {}).get("code")
    if code is None:
        await request.respond(data)
    else:
        text = printable(str(reply.body["error"]["message"]), 200)
        await request.respond_error(str(CODES.get(code, 500)), f"{code}: {text}", data=data)


def reply_schema(data: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a reply whose data has that schema."""
    return {
        "type": "object",
        "required": ["ok", "request_id", "trace_id"],
        "properties": {
            "ok": {"type": "boolean"},
            "request_id": {"type": "string"},
            "trace_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            "duplicate": {"type": "boolean"},
            "data": data,
            "error": {
                "type": "object",
                "required": ["code", "http", "message", "retryable", "details"],
                "properties": {
                    "code": {"enum": sorted(CODES)},
                    "http": {"type": "integer"},
                    "message": {"type": "string"},
                    "retryable": {"type": "boolean"},
                    "details": {"type": "object"},
                },
            },
        },
    }


def schemas(endpoint: Endpoint, data: dict[str, Any]) -> dict[str, str]:
    """The JSON Schemas of an endpoint's request and reply, as service metadata."""
    request, reply = msgspec.json.schema(endpoint.request), reply_schema(data)
    # Our patterns end with a look past the end, which other languages' validators lack; there `$` alone means the same.
    asked = _encode(request).decode().replace("$(?!\\\\n)", "$")
    return {
        "request_schema": asked, "reply_schema": _encode(reply).decode(), "role": endpoint.role,
    }  # fmt: skip
