"""The HTTP server: /healthz, /readyz, /metrics for anybody; /api/traces… in Jaeger's JSON for operators.

    server = HttpServer("127.0.0.1:8321", checks=…, metrics=…, authorise=…, traces=…, trace=…)
    await server.start()        # server.url says where; port 0 takes a free one
    await server.stop()         # within a second, whatever is still open

`checks()` gives {name: None | "what is wrong"}; `metrics()` the list of `adapters.http.metrics`; `authorise(token)`
the operator's name or None; `traces(search)` and `trace(trace_id)` Jaeger's JSON (an empty `data` for none).
`routes` adds the console's and the webhook's own. Errors are JSON: {"error": {"code", "http", "message"}}.
"""

import asyncio
import inspect
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from adapters.http.metrics import CONTENT_TYPE, Metric, prometheus_text
from amends.values.errors import BadConfiguration, Rejected, Unavailable

log = logging.getLogger("amends.http")
OPERATOR = web.RequestKey("operator", str)  # who asks, in a guarded handler
STOP_S = 0.25  # aiohttp waits this long twice
MAX_BODY = 1 << 20
MAX_TRACES, DEFAULT_TRACES = 1000, 20
_TRACE_ID = re.compile(r"[0-9a-fA-F]{1,32}")
_UNITS_US = {"ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
_LOOK_BACK = re.compile(r"(\d{1,9})(ms|s|m|h|d)")

Checks = Callable[[], Mapping[str, str | None] | Awaitable[Mapping[str, str | None]]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class TraceSearch(Struct, frozen=True):
    """What `/api/traces` asks for; times in microseconds."""

    service: str
    limit: int
    since_us: int
    until_us: int
    operation: str | None
    tags: dict[str, Any]


class HttpServer:
    """One listening address. `start` raises `BadConfiguration` when it cannot be had."""

    def __init__(
        self,
        listen: str,
        *,
        checks: Checks,
        metrics: Callable[[], Iterable[Metric]],
        authorise: Callable[[str], str | None],
        traces: Callable[[TraceSearch], Awaitable[Mapping[str, Any]]],
        trace: Callable[[str], Awaitable[Mapping[str, Any]]],
        services: Sequence[str] = ("amends",),
        routes: Sequence[tuple[str, str, Handler]] = (),
    ) -> None:
        self._listen, self._checks, self._metrics, self._authorise = listen, checks, metrics, authorise
        self._traces, self._trace, self._services, self._routes = traces, trace, services, routes
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen."""
        host, port = _address(self._listen)
        app = web.Application(middlewares=[_errors], client_max_size=MAX_BODY)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/api/services", self.guarded(self._show_services))
        app.router.add_get("/api/traces", self.guarded(self._search))
        app.router.add_get("/api/traces/{trace_id}", self.guarded(self._show_trace))
        for method, path, handler in self._routes:
            app.router.add_route(method, path, handler)
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=STOP_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            raise BadConfiguration(f"[http].listen {self._listen}: {error.strerror or error}") from error
        self._runner = runner
        bound = runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        self.url = f"http://{shown}:{bound[1]}"

    async def stop(self) -> None:
        """Stop listening; what is still being answered gets a moment."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def guarded(self, handler: Handler) -> Handler:
        """The handler for operators only: `Authorization: Bearer <token>`; it finds the name under `OPERATOR`."""

        async def checked(request: web.Request) -> web.StreamResponse:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            token = token.strip()
            operator = self._authorise(token) if scheme.lower() == "bearer" and token else None
            if operator is None:
                raise Rejected("unauthenticated", "this needs an operator's bearer token")
            request[OPERATOR] = operator
            return await handler(request)

        return checked

    # --- pages ---------------------------------------------------------------------------------------

    async def _health(self, _request: web.Request) -> web.Response:
        return _json({"ok": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        found = self._checks()
        checks = await found if inspect.isawaitable(found) else found
        ready = all(problem is None for problem in checks.values())
        shown = {name: "ok" if problem is None else problem for name, problem in checks.items()}
        return _json({"ok": ready, "checks": shown}, 200 if ready else 503)

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        text = prometheus_text(self._metrics())
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _show_services(self, _request: web.Request) -> web.Response:
        services = list(self._services)
        return _json({"data": services, "total": len(services), "limit": 0, "offset": 0, "errors": None})

    async def _search(self, request: web.Request) -> web.Response:
        return _json(await self._traces(_search_of(request.query)))

    async def _show_trace(self, request: web.Request) -> web.Response:
        trace_id = request.match_info["trace_id"]
        if _TRACE_ID.fullmatch(trace_id) is None:
            raise Rejected("invalid_request", "a trace id is up to 32 hex digits", field="trace_id")
        found = await self._trace(trace_id.lower().rjust(32, "0"))
        if not found["data"]:
            raise Rejected("not_found", f"there is no trace {trace_id}")
        return _json(found)


def _search_of(query: Mapping[str, str]) -> TraceSearch:
    now = time.time_ns() // 1000
    since, until = _number(query, "start", 0), _number(query, "end", now)
    look_back = _LOOK_BACK.fullmatch(query.get("lookback", ""))
    if "start" not in query and look_back is not None:
        since = until - int(look_back[1]) * _UNITS_US[look_back[2]]
    limit = _number(query, "limit", DEFAULT_TRACES)
    if not 1 <= limit <= MAX_TRACES:
        raise Rejected("invalid_request", f"limit must be from 1 to {MAX_TRACES}", field="limit")
    try:
        tags = msgspec.json.decode(query.get("tags") or "{}", type=dict[str, Any])
    except msgspec.DecodeError:
        raise Rejected("invalid_request", "tags must be a JSON object", field="tags") from None
    operation = query.get("operation")
    return TraceSearch(query.get("service", ""), limit, max(0, since), until, operation, tags)


def _number(query: Mapping[str, str], field: str, default: int) -> int:
    text = query.get(field) or str(default)
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise Rejected("invalid_request", f"{field} must be a whole number", field=field)
    return int(text)


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise BadConfiguration(f"[http].listen must be host:port, not {listen!r}")
    return host.strip("[]"), int(port)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error is JSON that says what to do; ours says nothing of the inside."""
    try:
        return await handler(request)
    except Rejected as error:
        headers = {"WWW-Authenticate": "Bearer"} if error.http == 401 else {}
        return _json({"error": error.body()}, error.http, headers)
    except Unavailable as error:
        return _json({"error": Rejected("db_unavailable", f"{error}; try again").body()}, 503)
    except web.HTTPException as error:
        code = "not_found" if error.status == 404 else "invalid_request"
        body = {"code": code, "http": error.status, "message": f"{request.method} {request.path}: {error.reason}"}
        return _json({"error": body}, error.status, {k: v for k, v in error.headers.items() if k == "Allow"})
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _json({"error": Rejected("internal", "this could not be answered; see the log").body()}, 500)


def _json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json", headers=dict(headers or {})
    )
