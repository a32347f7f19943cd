"""The HTTP server: /healthz, /readyz, /metrics for anybody; what stands in `guarded` for operators.

    server = HttpServer("127.0.0.1:8321", checks=…, metrics=…, authorise=…, guarded=jaeger_routes(…))
    await server.start()        # server.url says where; port 0 takes a free one
    await server.stop()         # within a second, whatever is still open

`checks()` gives {name: None | "what is wrong"}; `metrics()` the list of `amends.values.metrics`; `authorise(token)`
the operator's name or None; `guarded` and `routes` are (method, path, handler), the latter open to anybody;
`visitor(request)` the name of an operator whom a console knows otherwise, who may GET what is guarded. Errors are
JSON: {"error": {"code", "http", "message"}}, and below /api/ what Jaeger's interfaces read.
"""

import asyncio
import errno
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from aiohttp import web

from adapters.http.answers import Handler, jaeger_error, json_answer
from adapters.http.metrics import exposition_of
from adapters.http.patience import Patience
from amends.values.errors import BadConfiguration, Rejected, Unavailable
from amends.values.metrics import Metric

log = logging.getLogger("amends.http")
OPERATOR = web.RequestKey("operator", str)  # who asks, in a guarded handler
STOP_S = 0.25  # aiohttp waits this long twice
ENDLESS = ("/live",)  # whose answer has no end, so that there is no HEAD of it
MAX_BODY = 1 << 20
MAX_HEADER = 8 * 1024  # of one header, or of the request's line

Checks = Callable[[], Mapping[str, str | None] | Awaitable[Mapping[str, str | None]]]


class InUse(BadConfiguration):
    """Somebody else listens there now."""


class HttpServer:
    """One listening address. `start` raises `BadConfiguration` when it cannot be had."""

    def __init__(
        self,
        listen: str,
        *,
        checks: Checks,
        metrics: Callable[[], Iterable[Metric]],
        authorise: Callable[[str], str | None],
        guarded: Sequence[tuple[str, str, Handler]] = (),
        routes: Sequence[tuple[str, str, Handler]] = (),
        visitor: Callable[[web.Request], str | None] = lambda request: None,
    ) -> None:
        self._listen, self._checks, self._metrics, self._authorise = listen, checks, metrics, authorise
        self._guarded, self._routes, self._visitor = guarded, routes, visitor
        self._patience = Patience(
            lambda: self._runner.server.connections if self._runner and self._runner.server else ()
        )
        self._looking: asyncio.Task[None] | None = None
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen."""
        host, port = _address(self._listen)
        app = web.Application(middlewares=[_errors, self._patience.watched], client_max_size=MAX_BODY)
        own = [
            ("GET", "/healthz", self._health),
            ("GET", "/readyz", self._ready),
            ("GET", "/metrics", self._show_metrics),
        ]
        guarded = [(method, path, self.guarded(handler)) for method, path, handler in self._guarded]
        for method, path, handler in (*own, *guarded, *self._routes):
            app.router.add_route(method, path, handler)
            if method == "GET" and path not in ENDLESS:
                app.router.add_route("HEAD", path, handler)
        runner = web.AppRunner(
            app, handle_signals=False, access_log=None, shutdown_timeout=STOP_S, max_field_size=MAX_HEADER,
            max_line_size=MAX_HEADER,
        )  # fmt: skip
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            kind = InUse if error.errno == errno.EADDRINUSE else BadConfiguration
            raise kind(f"[http].listen {self._listen}: {error.strerror or error}") from error
        self._runner = runner
        self._looking = asyncio.create_task(self._patience.run(), name="http.patience")
        bound = runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        self.url = f"http://{shown}:{bound[1]}"

    async def stop(self) -> None:
        """Stop listening; what is still being answered gets a moment."""
        runner, self._runner = self._runner, None
        if self._looking is not None:
            self._looking.cancel()
        if runner is not None:
            await runner.cleanup()

    def guarded(self, handler: Handler) -> Handler:
        """The handler for operators only: `Authorization: Bearer <token>`; it finds the name under `OPERATOR`."""

        async def checked(request: web.Request) -> web.StreamResponse:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            token = token.strip()
            operator = self._authorise(token) if scheme.lower() == "bearer" and token else None
            if not scheme and request.method in ("GET", "HEAD"):
                operator = self._visitor(request)
            if operator is None:
                raise Rejected("unauthenticated", "this needs an operator's bearer token")
            request[OPERATOR] = operator
            return await handler(request)

        return checked

    # --- pages ---------------------------------------------------------------------------------------

    async def _health(self, _request: web.Request) -> web.Response:
        return json_answer({"ok": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        found = self._checks()
        checks = await found if inspect.isawaitable(found) else found
        ready = all(problem is None for problem in checks.values())
        shown = {name: "ok" if problem is None else problem for name, problem in checks.items()}
        return json_answer({"ok": ready, "checks": shown}, 200 if ready else 503)

    async def _show_metrics(self, request: web.Request) -> web.Response:
        text, kind = exposition_of(self._metrics(), request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": kind})


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise BadConfiguration(f"[http].listen must be host:port, not {listen!r}")
    return host.strip("[]"), int(port)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error is JSON that says what to do; ours says nothing of the inside."""
    headers: dict[str, str] = {}
    goes_on: bool | None = None
    try:
        return await handler(request)
    except Rejected as error:
        refused, status = error, error.http
        if status == 401:
            headers = {"WWW-Authenticate": "Bearer"}
    except Unavailable as error:
        refused, status = Rejected("db_unavailable", f"{error}; try again"), 503
    except web.HTTPException as error:
        code = "not_found" if error.status == 404 else "invalid_request"
        refused, status = Rejected(code, f"{request.method} {request.path}: {error.reason}"), error.status
        headers, goes_on = {key: value for key, value in error.headers.items() if key == "Allow"}, error.keep_alive
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        refused, status = Rejected("internal", "this could not be answered; see the log"), 500
    is_jaegers = request.path.startswith("/api/")
    body = jaeger_error(status, refused.message) if is_jaegers else {"error": {**refused.body(), "http": status}}
    answer = json_answer(body, status, headers)
    if goes_on is False:
        answer.force_close()
    return answer
