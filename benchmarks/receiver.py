"""A receiver of spans in a process of its own: it takes OTLP over HTTP, and counts what it decodes.

`python -m benchmarks.receiver` prints its address and serves until its standard input ends; `GET /count` tells.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from adapters.embedded.ports import HOST


async def serve() -> None:
    """Until standard input ends."""
    count = 0

    async def take(request: web.Request) -> web.Response:
        nonlocal count
        sent = ExportTraceServiceRequest.FromString(await request.read())
        count += sum(len(scope.spans) for resource in sent.resource_spans for scope in resource.scope_spans)
        return web.Response(body=b"", content_type="application/x-protobuf")

    async def tell(request: web.Request) -> web.Response:
        return web.json_response(count)

    app = web.Application(client_max_size=1 << 26)
    app.add_routes([web.post("/v1/traces", take), web.get("/count", tell)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    port = runner.addresses[0][1]
    print(f"http://{HOST}:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


class Receiver(Struct, frozen=True):
    """One that runs."""

    url: str
    pid: int


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """Start one, and end it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.receiver", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Receiver((await process.stdout.readline()).decode().strip(), process.pid)
    finally:
        process.stdin.close()
        await process.wait()


async def received(url: str) -> int:
    """How many spans it has by now."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/count") as answer:
        return int(await answer.json())


if __name__ == "__main__":
    asyncio.run(serve())
