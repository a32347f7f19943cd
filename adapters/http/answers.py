"""What every page of the HTTP server is made of: handlers, and answers in JSON."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def json_answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`body` as JSON, of this moment."""
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})},
    )  # fmt: skip


def jaeger_error(code: int, message: str) -> dict[str, Any]:
    """An error as Jaeger's interfaces read it."""
    return {"data": None, "errors": [{"code": code, "msg": message}]}
