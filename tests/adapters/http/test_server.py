"""The HTTP server over real sockets: what anybody may see, what operators may see, and how errors look."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from adapters.http import patience
from adapters.http.answers import json_answer
from adapters.http.metrics import exposition_of
from adapters.http.server import MAX_HEADER, OPERATOR, HttpServer
from adapters.http.stripe import stripe_routes
from amends.values.errors import BadConfiguration, Unavailable
from amends.values.histogram import Histogram
from amends.values.metrics import Metric, Sample
from tests.patience import PATIENCE_S

TOKEN = {"Authorization": "Bearer secret"}


class Behind:
    """What the server asks."""

    def __init__(self) -> None:
        self.checks: dict[str, str | None] = {"postgres": None, "nats": None}
        self.error: Exception | None = None
        self.slow = asyncio.Event()  # somebody asks for what takes long

    async def page(self, request: web.Request) -> web.Response:
        if self.error is not None:
            raise self.error
        return json_answer({"operator": request[OPERATOR]})


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
        guarded=[("GET", "/page", behind.page), ("GET", "/api/page", behind.page)],
        routes=[("GET", "/slow", slow)],
    )
    await server.start()
    yield server
    await server.stop()


async def get(server: HttpServer, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any, str]:
    async with aiohttp.ClientSession() as session, session.get(server.url + path, headers=headers or {}) as answer:
        kind = answer.content_type
        return answer.status, await (answer.json() if kind == "application/json" else answer.text()), kind


async def test_a_header_is_taken_whole_or_refused_with_the_bound_that_it_is_beyond() -> None:
    taken, answers = list[str](), list[tuple[int, bool]]()

    async def take(body: bytes, signature: str, way: str) -> dict[str, Any]:
        taken.append(signature)
        return {"duplicate": False}

    server = HttpServer(
        "127.0.0.1:0", checks=dict, metrics=list, authorise=lambda token: None, routes=stripe_routes(take)
    )
    await server.start()
    async with aiohttp.ClientSession() as session:
        for size in (MAX_HEADER, MAX_HEADER + 1):
            headers = {"Stripe-Signature": "v" * size}
            async with session.post(f"{server.url}/stripe/webhook", data=b"{}", headers=headers) as answer:
                answers.append((answer.status, f"more than {MAX_HEADER} bytes" in await answer.text()))
    await server.stop()
    assert taken == ["v" * MAX_HEADER], "the other one is refused, and none is cut"
    assert answers == [(200, False), (400, True)]


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
        "amends_turns_total 3.0",
    ]
    odd = exposition_of([("m", "gauge", "a\nb", [({"k": 'x"\\\n'}, 1.5), ({"k": "y"}, 0)])], "")[0].decode()
    assert odd.splitlines()[2:] == ['m{k="x\\"\\\\\\n"} 1.5', 'm{k="y"} 0.0']
    assert odd.splitlines()[0] == "# HELP m a\\nb"


async def test_openmetrics_leads_from_a_bucket_to_a_trace(server: HttpServer) -> None:
    histogram = Histogram()
    histogram.observe(0.02, "a" * 32)
    histogram.observe(0.03)
    samples: list[Sample] = [("_bucket", {"le": le}, n, newest) for le, n, newest in histogram.cumulative()]
    samples += [("_sum", {}, histogram.total_s, None), ("_count", {}, histogram.count, None)]
    metrics: list[Metric] = [("amends_h", "histogram", "took", samples), ("amends_c_total", "counter", "c", [({}, 1)])]
    text, kind = exposition_of(metrics, "application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text")
    (family, counter) = text_string_to_metric_families(text.decode())  # type: ignore[no-untyped-call]
    marked = {each.labels["le"]: each.exemplar for each in family.samples if each.exemplar}
    assert list(marked) == ["0.025"]
    assert (marked["0.025"].labels, marked["0.025"].value) == ({"trace_id": "a" * 32}, 0.02)
    assert [each.name for each in counter.samples] == ["amends_c_total"]
    status, text, kind = await get(server, "/metrics", {"Accept": "application/openmetrics-text"})
    assert (status, kind, text.splitlines()[-1]) == (200, "application/openmetrics-text", "# EOF")


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "Bearer   ", "Basic secret", "secret"])
async def test_guarded_pages_need_an_operator_s_token(server: HttpServer, header: str | None) -> None:
    given = {"Authorization": header} if header else {}
    status, body, _ = await get(server, "/page", given)
    assert (status, body["error"]["code"]) == (401, "unauthenticated")
    status, body, _ = await get(server, "/api/page", given)
    assert (status, body) == (
        401, {"data": None, "errors": [{"code": 401, "msg": "this needs an operator's bearer token"}]}
    )  # fmt: skip


async def test_a_guarded_page_knows_who_asks(server: HttpServer) -> None:
    assert await get(server, "/page", TOKEN) == (200, {"operator": "ada"}, "application/json")


Case = tuple[Callable[[], Exception], int, str]


@pytest.mark.parametrize(
    ("make", "status", "code"),
    [(lambda: Unavailable("away"), 503, "db_unavailable"), (lambda: RuntimeError("secret inside"), 500, "internal")],
)
async def test_errors_are_json_and_tell_nothing_of_the_inside(
    server: HttpServer, behind: Behind, make: Callable[[], Exception], status: int, code: str
) -> None:
    behind.error = make()
    found, body, _ = await get(server, "/page", TOKEN)
    assert (found, body["error"]["code"], body["error"]["http"]) == (status, code, status)
    assert "inside" not in body["error"]["message"]
    found, body, _ = await get(server, "/api/page", TOKEN)
    assert (found, body["data"], [error["code"] for error in body["errors"]]) == (status, None, [status])
    assert "inside" not in body["errors"][0]["msg"]


async def test_unknown_paths_and_methods_are_json_too(server: HttpServer) -> None:
    status, body, _ = await get(server, "/nowhere")
    assert (status, body["error"]["code"]) == (404, "not_found")
    status, body, _ = await get(server, "/api/nowhere")
    assert (status, body["data"], body["errors"][0]["code"]) == (404, None, 404)
    async with aiohttp.ClientSession() as session, session.post(f"{server.url}/healthz") as answer:
        assert answer.status == 405
        assert (await answer.json())["error"]["code"] == "invalid_request"


async def test_it_stops_within_a_second_whatever_is_open(server: HttpServer, behind: Behind) -> None:
    async with aiohttp.ClientSession() as session:
        open_request = asyncio.create_task(session.get(f"{server.url}/slow"))
        async with asyncio.timeout(PATIENCE_S):
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
        )
        with pytest.raises(BadConfiguration, match=r"\[http\].listen"):
            await other.start()


async def test_who_sends_no_whole_request_is_cut_off_and_who_is_answered_is_not(
    server: HttpServer, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "HEAD_S", 0.2)
    monkeypatch.setattr(patience, "LOOK_S", 0.05)
    monkeypatch.setattr(patience, "BODY_S", 0.2)
    host, port = server.url.removeprefix("http://").split(":")
    idle, half = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
    half[1].write(b"GET /healthz HTTP/1.1\r\nHost:")
    body = await asyncio.open_connection(host, int(port))
    body[1].write(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab")
    slow = asyncio.create_task(get(server, "/slow"))
    async with asyncio.timeout(PATIENCE_S):
        assert await idle[0].read() == b""
        assert await half[0].read() == b""
        assert (await body[0].readline()).startswith((b"HTTP/1.1 408", b"HTTP/1.1 405"))
        await behind.slow.wait()
    assert not slow.done()
    for _, writer in (idle, half, body):
        writer.close()
        await writer.wait_closed()
    slow.cancel()
    await asyncio.wait([slow])


async def test_there_is_a_head_of_every_page(server: HttpServer) -> None:
    async with aiohttp.ClientSession() as session:
        for path, headers, status in (("/healthz", {}, 200), ("/page", TOKEN, 200), ("/page", {}, 401)):
            async with session.head(server.url + path, headers=headers) as answer:
                assert (answer.status, await answer.read()) == (status, b"")


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3", True),
        ("application/openmetrics-text;q=0, text/plain", False),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.9", False),
        ("application/openmetrics-text;q=x", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_the_text_is_the_one_that_is_wanted_most(accept: str, *, is_open: bool) -> None:
    assert ("openmetrics" in exposition_of([], accept)[1]) == is_open
