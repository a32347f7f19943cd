"""The HTTP server over real sockets: what anybody may see, what operators may see, and how errors look."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from adapters.http.metrics import prometheus_text
from adapters.http.server import HttpServer, TraceSearch
from amends.values.errors import BadConfiguration, Unavailable

TOKEN = {"Authorization": "Bearer secret"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Behind:
    """What the server asks."""

    def __init__(self) -> None:
        self.checks: dict[str, str | None] = {"postgres": None, "nats": None}
        self.searches: list[TraceSearch] = []
        self.error: Exception | None = None
        self.slow = asyncio.Event()  # somebody asks for what takes long

    async def traces(self, search: TraceSearch) -> Mapping[str, Any]:
        self.searches.append(search)
        if self.error is not None:
            raise self.error
        return {"data": [{"traceID": TRACE}]}

    async def trace(self, trace_id: str) -> Mapping[str, Any]:
        return {"data": [{"traceID": trace_id}] if trace_id == TRACE else []}


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
async def server(behind: Behind) -> AsyncIterator[HttpServer]:
    async def slow(_: web.Request) -> web.Response:
        behind.slow.set()
        await asyncio.sleep(60)
        return web.Response()

    server = HttpServer(
        "127.0.0.1:0",
        checks=lambda: behind.checks,
        metrics=lambda: [("amends_turns_total", "counter", "Turns committed", [({}, 3)])],
        authorise=lambda token: "ada" if token in ("secret", "") else None,
        traces=behind.traces,
        trace=behind.trace,
        routes=[("GET", "/slow", slow)],
    )
    await server.start()
    yield server
    await server.stop()


async def get(server: HttpServer, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any, str]:
    async with aiohttp.ClientSession() as session, session.get(server.url + path, headers=headers or {}) as answer:
        kind = answer.content_type
        return answer.status, await (answer.json() if kind == "application/json" else answer.text()), kind


async def test_health_is_of_the_process_and_readiness_of_its_parts(server: HttpServer, behind: Behind) -> None:
    assert (await get(server, "/healthz"))[:2] == (200, {"ok": True})
    assert (await get(server, "/readyz"))[:2] == (200, {"ok": True, "checks": {"postgres": "ok", "nats": "ok"}})
    behind.checks["nats"] = "not connected"
    status, body, _ = await get(server, "/readyz")
    assert (status, body) == (503, {"ok": False, "checks": {"postgres": "ok", "nats": "not connected"}})
    assert (await get(server, "/healthz"))[0] == 200


async def test_metrics_are_prometheus_text(server: HttpServer) -> None:
    status, text, kind = await get(server, "/metrics")
    assert (status, kind) == (200, "text/plain")
    assert text.splitlines() == [
        "# HELP amends_turns_total Turns committed",
        "# TYPE amends_turns_total counter",
        "amends_turns_total 3",
    ]
    odd = prometheus_text([("m", "gauge", "a\nb", [({"k": 'x"\\\n'}, 1.5), ({"k": "y"}, 0)])])
    assert odd.splitlines()[2:] == ['m{k="x\\"\\\\\\n"} 1.5', 'm{k="y"} 0']
    assert odd.splitlines()[0] == "# HELP m a\\nb"


@pytest.mark.parametrize("path", ["/api/traces", f"/api/traces/{TRACE}", "/api/services"])
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "Bearer   ", "Basic secret", "secret"])
async def test_traces_need_an_operator_s_token(server: HttpServer, path: str, header: str | None) -> None:
    status, body, _ = await get(server, path, {"Authorization": header} if header else {})
    assert (status, body["error"]["code"]) == (401, "unauthenticated")


async def test_an_operator_sees_traces(server: HttpServer, behind: Behind) -> None:
    assert (await get(server, "/api/services", TOKEN))[1]["data"] == ["amends"]
    assert (await get(server, f"/api/traces/{TRACE.upper()}", TOKEN))[1]["data"] == [{"traceID": TRACE}]
    assert (await get(server, "/api/traces/ab", TOKEN))[0] == 404
    assert (await get(server, "/api/traces/xyz", TOKEN))[0] == 400
    path = '/api/traces?service=amends&limit=5&lookback=1h&operation=ssh.probe&tags={"amends.entity":"node:n1"}'
    before = time.time_ns() // 1000
    assert (await get(server, path, TOKEN))[0] == 200
    found = behind.searches[-1]
    assert (found.service, found.limit, found.operation) == ("amends", 5, "ssh.probe")
    assert found.tags == {"amends.entity": "node:n1"}
    assert found.until_us - found.since_us == 3_600_000_000
    assert found.until_us >= before
    await get(server, "/api/traces?start=5&end=10", TOKEN)
    assert (behind.searches[-1].since_us, behind.searches[-1].until_us) == (5, 10)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "start=-5", "end=1e3", "tags=[", "tags=[]"])
async def test_a_bad_search_is_refused(server: HttpServer, behind: Behind, query: str) -> None:
    status, body, _ = await get(server, f"/api/traces?{query}", TOKEN)
    assert (status, body["error"]["code"]) == (400, "invalid_request")
    assert behind.searches == []


Case = tuple[Callable[[], Exception], int, str]


@pytest.mark.parametrize(
    ("make", "status", "code"),
    [(lambda: Unavailable("away"), 503, "db_unavailable"), (lambda: RuntimeError("secret inside"), 500, "internal")],
)
async def test_errors_are_json_and_tell_nothing_of_the_inside(
    server: HttpServer, behind: Behind, make: Callable[[], Exception], status: int, code: str
) -> None:
    behind.error = make()
    found, body, _ = await get(server, "/api/traces", TOKEN)
    assert (found, body["error"]["code"], body["error"]["http"]) == (status, code, status)
    assert "inside" not in body["error"]["message"]


async def test_unknown_paths_and_methods_are_json_too(server: HttpServer) -> None:
    status, body, _ = await get(server, "/nowhere")
    assert (status, body["error"]["code"]) == (404, "not_found")
    async with aiohttp.ClientSession() as session, session.post(f"{server.url}/healthz") as answer:
        assert answer.status == 405
        assert (await answer.json())["error"]["code"] == "invalid_request"


async def test_it_stops_within_a_second_whatever_is_open(server: HttpServer, behind: Behind) -> None:
    async with aiohttp.ClientSession() as session:
        open_request = asyncio.create_task(session.get(f"{server.url}/slow"))
        async with asyncio.timeout(10):
            await behind.slow.wait()
        stopping = asyncio.create_task(server.stop())
        # A second is 20 beats of this loop: where the machine stands still, it stands still for both.
        for _ in range(20):
            await asyncio.wait({stopping}, timeout=0.05)
        assert stopping.done()
        await stopping
        with pytest.raises(aiohttp.ClientError):
            await open_request


async def test_an_address_that_cannot_be_had_is_said_clearly(server: HttpServer, behind: Behind) -> None:
    taken = server.url.removeprefix("http://")
    for listen in (taken, "nowhere", "127.0.0.1:x", "127.0.0.1:70000"):
        other = HttpServer(
            listen,
            checks=dict,
            metrics=list,
            authorise=lambda token: None,
            traces=behind.traces,
            trace=behind.trace,
        )
        with pytest.raises(BadConfiguration, match=r"\[http\].listen"):
            await other.start()
