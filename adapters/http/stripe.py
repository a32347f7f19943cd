"""`POST /stripe/webhook`: the body as it came and its signature; 200 when it is committed."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from adapters.http.answers import Handler, json_answer

Take = Callable[[bytes, str, str], Awaitable[dict[str, Any]]]  # body, signature, by which way it came


def stripe_routes(take: Take) -> list[tuple[str, str, Handler]]:
    """The route; what `take` raises becomes the error of every page."""

    async def deliver(request: web.Request) -> web.Response:
        answer = await take(await request.read(), request.headers.get("Stripe-Signature", ""), "http")
        return json_answer({"ok": True, "duplicate": bool(answer["duplicate"])})

    return [("POST", "/stripe/webhook", deliver)]
