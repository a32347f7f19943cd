"""Jaeger's query API as its interfaces 1.x (`/api/…`) and 2.x (`/api/v3/…`) ask it: routes over a source of traces.

    routes = jaeger_routes(source)      # [(method, path, handler)] for `HttpServer(guarded=…)`

What is asked stands in `jaeger_query`; what is answered is the source's. Errors have Jaeger's shape.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from aiohttp import web

from adapters.http.answers import Handler, json_answer
from adapters.http.jaeger_query import TraceSearch, only, search_of_v1, search_of_v3, span_kind
from amends.values.errors import Rejected

Shape = Literal["jaeger", "otlp", "summaries"]
SHOWN_AS = frozenset(("prettyPrint", "raw", "raw_traces", "rawTraces"))  # how a trace is shown: there is one way
_TRACE_ID = re.compile(r"[0-9a-fA-F]{1,32}")


class TraceSource(Protocol):
    """Who knows the spans. All raise `Unavailable`."""

    async def services(self) -> Sequence[str]:
        """The names under which spans are recorded."""
        ...

    async def operations(self, service: str, kind: str | None) -> Sequence[tuple[str, str]]:
        """(name, span kind in small letters) of a service's newer spans; `kind` None for all."""
        ...

    async def find(self, search: TraceSearch, shape: Shape) -> Mapping[str, Any]:
        """The traces that have a span of that description, newest first."""
        ...

    async def trace(self, trace_id: str, shape: Shape) -> Mapping[str, Any] | None:
        """One trace, or None."""
        ...


def jaeger_routes(source: TraceSource) -> list[tuple[str, str, Handler]]:
    """The routes; they show what operators may see."""
    api = _Api(source)
    return [
        ("GET", "/api/services", api.services),
        ("GET", "/api/services/{service}/operations", api.operation_names),
        ("GET", "/api/operations", api.operations),
        ("GET", "/api/traces", api.find),
        ("GET", "/api/traces/{trace_id}", api.trace_as("jaeger")),
        ("GET", "/api/dependencies", api.dependencies),
        ("GET", "/api/v3/services", api.services_v3),
        ("GET", "/api/v3/operations", api.operations_v3),
        ("GET", "/api/v3/traces", api.find_v3("otlp")),
        ("GET", "/api/v3/trace-summaries", api.find_v3("summaries")),
        ("GET", "/api/v3/traces/{trace_id}", api.trace_as("otlp")),
    ]


class _Api:
    def __init__(self, source: TraceSource) -> None:
        self._source = source

    async def services(self, request: web.Request) -> web.Response:
        only(request.query.items(), SHOWN_AS)
        return _listed(await self._source.services())

    async def services_v3(self, request: web.Request) -> web.Response:
        only(request.query.items(), SHOWN_AS)
        return json_answer({"services": list(await self._source.services())})

    async def operation_names(self, request: web.Request) -> web.Response:
        only(request.query.items(), SHOWN_AS)
        found = await self._source.operations(request.match_info["service"], None)
        return _listed(sorted({name for name, _ in found}))

    async def operations(self, request: web.Request) -> web.Response:
        return _listed(await self._operations(request))

    async def operations_v3(self, request: web.Request) -> web.Response:
        return json_answer({"operations": await self._operations(request)})

    async def _operations(self, request: web.Request) -> list[dict[str, str]]:
        asked = only(request.query.items(), {"service", "spanKind", "span_kind", *SHOWN_AS})
        if "service" not in asked:
            raise Rejected("invalid_request", "the parameter service is required", field="service")
        kind = span_kind(asked.get("spanKind") or asked.get("span_kind") or "")
        return [{"name": name, "spanKind": of} for name, of in await self._source.operations(asked["service"], kind)]

    async def find(self, request: web.Request) -> web.Response:
        return json_answer(await self._source.find(search_of_v1(request.query.items()), "jaeger"))

    async def dependencies(self, request: web.Request) -> web.Response:
        """There is one service, which depends on no other that makes spans."""
        only(request.query.items(), {"endTs", "lookback", "service", *SHOWN_AS})
        return _listed([])

    def find_v3(self, shape: Shape) -> Handler:
        async def find(request: web.Request) -> web.Response:
            return json_answer(await self._source.find(search_of_v3(request.query.items()), shape))

        return find

    def trace_as(self, shape: Shape) -> Handler:
        async def trace(request: web.Request) -> web.Response:
            trace_id = request.match_info["trace_id"]
            if _TRACE_ID.fullmatch(trace_id) is None:
                raise Rejected("invalid_request", "a trace id is up to 32 hex digits", field="trace_id")
            # A trace is found by its id: when it was, which viewers may add, is no need and no filter.
            only(request.query.items(), {"start", "end", "startTime", "endTime", "start_time", "end_time", *SHOWN_AS})
            found = await self._source.trace(trace_id.lower().rjust(32, "0"), shape)
            if found is None:
                raise Rejected("not_found", f"there is no trace {trace_id}")
            return json_answer(found)

        return trace


def _listed(data: Sequence[Any]) -> web.Response:
    return json_answer({"data": list(data), "total": len(data), "limit": 0, "offset": 0, "errors": None})
