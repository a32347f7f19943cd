"""Jaeger's query API as its interfaces ask it, over real sockets: what is understood, and what is refused."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp
import pytest

from adapters.http.jaeger import Shape, jaeger_routes
from adapters.http.jaeger_query import TraceSearch
from adapters.http.server import HttpServer

TOKEN = {"Authorization": "Bearer secret"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Source:
    """Keeps what it was asked."""

    def __init__(self) -> None:
        self.searches: list[tuple[TraceSearch, Shape]] = []
        self.kinds: list[str | None] = []

    async def services(self) -> Sequence[str]:
        return ["amends"]

    async def operations(self, service: str, kind: str | None) -> Sequence[tuple[str, str]]:
        self.kinds.append(kind)
        found = [("cmd.allocation.request", "server"), ("ssh.probe", "client"), ("ssh.probe", "internal")]
        return [pair for pair in found if service == "amends" and kind in (None, pair[1])]

    async def find(self, search: TraceSearch, shape: Shape) -> Mapping[str, Any]:
        self.searches.append((search, shape))
        return {"data": [], "shape": shape}

    async def trace(self, trace_id: str, shape: Shape) -> Mapping[str, Any] | None:
        return {"trace": trace_id, "shape": shape} if trace_id == TRACE else None


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def server(source: Source) -> AsyncIterator[HttpServer]:
    server = HttpServer(
        "127.0.0.1:0", checks=dict, metrics=list, authorise=lambda token: "ada" if token == "secret" else None,
        guarded=jaeger_routes(source),
    )  # fmt: skip
    await server.start()
    yield server
    await server.stop()


async def get(
    server: HttpServer, path: str, params: Any = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(server.url + path, params=params, headers=TOKEN if headers is None else headers) as answer,
    ):
        return answer.status, await answer.json()


PATHS = [path.replace("{service}", "amends").replace("{trace_id}", TRACE) for _, path, _ in jaeger_routes(Source())]


@pytest.mark.parametrize("path", PATHS)
async def test_every_page_needs_an_operator_s_token(server: HttpServer, path: str) -> None:
    status, body = await get(server, path, headers={})
    assert (status, body["data"], body["errors"][0]["code"]) == (401, None, 401)


async def test_services_operations_and_dependencies_have_both_shapes(server: HttpServer, source: Source) -> None:
    page = {"limit": 0, "offset": 0, "errors": None}
    assert await get(server, "/api/services") == (200, {"data": ["amends"], "total": 1, **page})
    names = await get(server, "/api/services/amends/operations")
    assert names == (200, {"data": ["cmd.allocation.request", "ssh.probe"], "total": 2, **page})
    assert (await get(server, "/api/services/other/operations"))[1]["data"] == []
    one = [{"name": "ssh.probe", "spanKind": "client"}]
    found = await get(server, "/api/operations", {"service": "amends", "spanKind": "client"})
    assert found == (200, {"data": one, "total": 1, **page})
    assert source.kinds[-1] == "client"
    found = await get(server, "/api/dependencies", {"endTs": "1768478400000", "lookback": "604800000"})
    assert found == (200, {"data": [], "total": 0, **page})
    assert await get(server, "/api/v3/services") == (200, {"services": ["amends"]})
    status, body = await get(server, "/api/v3/operations", {"service": "amends"})
    assert (status, len(body["operations"]), body["operations"][1]) == (200, 3, one[0])
    found = await get(server, "/api/v3/operations", {"service": "amends", "span_kind": "CLIENT"})
    assert found == (200, {"operations": one})


async def test_a_trace_is_found_by_its_id(server: HttpServer) -> None:
    assert await get(server, f"/api/traces/{TRACE.upper()}") == (200, {"trace": TRACE, "shape": "jaeger"})
    assert await get(server, f"/api/traces/{TRACE}?prettyPrint=true&raw=true") == (
        200, {"trace": TRACE, "shape": "jaeger"}
    )  # fmt: skip
    assert await get(server, f"/api/v3/traces/{TRACE}") == (200, {"trace": TRACE, "shape": "otlp"})
    for prefix in ("/api", "/api/v3"):
        missing = {"data": None, "errors": [{"code": 404, "msg": "there is no trace ab"}]}
        assert await get(server, f"{prefix}/traces/ab") == (404, missing)
        assert (await get(server, f"{prefix}/traces/xyz"))[0] == 400


async def test_what_the_interface_1_asks_is_understood(server: HttpServer, source: Source) -> None:
    query = {
        "end": "1768478400000000", "limit": "100", "lookback": "custom", "service": "amends",
        "start": "1768474800000000", "operation": "ssh.probe", "minDuration": "1.2ms", "maxDuration": "1h30m",
        "tags": '{"error":"true","amends.attempt":"1"}',
    }  # fmt: skip
    assert (await get(server, "/api/traces", query))[0] == 200
    asked, shape = source.searches[-1]
    assert shape == "jaeger"
    assert asked == TraceSearch(
        "amends", 100, 1768474800000000, 1768478400000000, "ssh.probe", {"error": "true", "amends.attempt": "1"},
        1200, 5_400_000_000,
    )  # fmt: skip


async def test_what_the_interface_2_asks_is_understood(server: HttpServer, source: Source) -> None:
    query = {
        "query.serviceName": "amends", "query.startTimeMin": "2026-01-15T11:00:00.000Z",
        "query.startTimeMax": "2026-01-15T13:00:00.123456789+01:00", "query.searchDepth": "100",
        "query.operationName": "ssh.probe", "query.durationMin": "100us", "query.durationMax": "2s",
        "query.attributes": '{"span.kind":"CLIENT","otel.status_code":"error"}',
    }  # fmt: skip
    for path, shape in (("/api/v3/trace-summaries", "summaries"), ("/api/v3/traces", "otlp")):
        assert (await get(server, path, query))[0] == 200
        assert source.searches[-1] == (
            TraceSearch(
                "amends", 100, 1768474800000000, 1768478400123456, "ssh.probe",
                {"span.kind": "client", "otel.status_code": "ERROR"}, 100, 2_000_000,
            ),
            shape,
        )  # fmt: skip
    snake = [
        ("query.service_name", "amends"),
        ("query.num_traces", "7"),
        ("query.start_time_min", "2026-01-15T11:00:00Z"),
    ]
    assert (await get(server, "/api/v3/traces", snake))[0] == 200
    assert (source.searches[-1][0].service, source.searches[-1][0].limit) == ("amends", 7)


async def test_tags_are_texts_however_they_come(server: HttpServer, source: Source) -> None:
    pairs = [
        ("tag", "amends.entity:allocation:alloc_1"),
        ("tag", "error:true"),
        ("tags", '{"amends.attempt":2,"a":true}'),
    ]
    assert (await get(server, "/api/traces", pairs))[0] == 200
    wanted = {"amends.entity": "allocation:alloc_1", "error": "true", "amends.attempt": "2", "a": "true"}
    assert source.searches[-1][0].tags == wanted


async def test_several_traces_and_a_look_back_can_be_asked_for(server: HttpServer, source: Source) -> None:
    assert (await get(server, "/api/traces", [("traceID", TRACE), ("traceID", "AB")]))[0] == 200
    assert source.searches[-1][0].trace_ids == (TRACE, "ab".rjust(32, "0"))
    before = time.time_ns() // 1000
    assert (await get(server, "/api/traces?service=amends&lookback=1h"))[0] == 200
    asked = source.searches[-1][0]
    assert asked.until_us - asked.since_us == 3_600_000_000
    assert asked.until_us >= before
    assert (await get(server, "/api/traces?start=5&end=10"))[0] == 200
    assert (source.searches[-1][0].since_us, source.searches[-1][0].until_us) == (5, 10)


BAD_V1 = [
    "limit=0", "limit=1001", "limit=x", "start=-5", "end=1e3", "tags=[", "tags=[]", 'tags={"a":null}', 'tags={"a":[1]}',
    "tag=error", "tag=:true", "tag=error:true&tag=error:false", "minDuration=5", "maxDuration=1.2.3ms",
    "minDuration=2s&maxDuration=1s", "lookback=soon", "traceID=xyz", "colour=red", "service=a&service=b",
    "service=%00", "tags=" + "{" * 2000,
]  # fmt: skip
BAD_V3 = [
    "query.searchDepth=0", "query.searchDepth=1001", "query.startTimeMin=yesterday",
    "query.startTimeMin=2026-01-15T11:00:00", "query.durationMin=5", "query.attributes=[]", "query.colour=red",
    "service=amends", "query.serviceName=a&query.service_name=b",
]  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [f"/api/traces?{query}" for query in BAD_V1]
    + [f"/api/v3/{page}?{query}" for page in ("traces", "trace-summaries") for query in BAD_V3]
    + ["/api/operations", "/api/operations?service=amends&spanKind=odd", f"/api/traces/{TRACE}?colour=red"],
)
async def test_what_is_not_understood_is_refused_and_never_ignored(
    server: HttpServer, source: Source, path: str
) -> None:
    status, body = await get(server, path)
    assert (status, body["data"], body["errors"][0]["code"]) == (400, None, 400)
    assert body["errors"][0]["msg"]
    assert (source.searches, source.kinds) == ([], [])
