"""Stripe's side of the webhook, by the documentation of its signatures alone: signed, sent over HTTP or over NATS."""

import hashlib
import hmac
import io
import json
import time
from typing import Any

import aiohttp

from tests.acceptance.world import World
from tests.patience import PATIENCE_S

SECRET, PREVIOUS = "whsec_current", "whsec_previous"
CONFIG = f'[stripe]\nwebhook_secrets = ["{SECRET}", "{PREVIOUS}"]\n'
SUBJECT = "amends.v1.ingress.stripe"


def signed(body: bytes, secret: str = SECRET, at_s: float | None = None) -> str:
    """The header."""
    at = int(time.time() if at_s is None else at_s)
    return f"t={at},v1={hmac.new(secret.encode(), b'%d.' % at + body, hashlib.sha256).hexdigest()}"


async def post(world: World, body: bytes, signature: str) -> tuple[int, dict[str, Any]]:
    """Status and answer over HTTP."""
    url = f"{world.endpoints['http_url']}/stripe/webhook"
    headers = {"Stripe-Signature": signature} if signature else {}
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with (
        aiohttp.ClientSession(timeout=timeout) as client,
        client.post(url, data=io.BytesIO(body), headers=headers) as answer,
    ):
        return answer.status, await answer.json()


async def send(world: World, body: bytes, signature: str) -> tuple[int, dict[str, Any]]:
    """The same over NATS."""
    headers = {"Stripe-Signature": signature} if signature else None
    reply = await world.nats.request(SUBJECT, body, timeout=PATIENCE_S, headers=headers)
    found = json.loads(reply.data)
    return (200 if found["ok"] else found["error"]["http"]), found


WAYS = {"http": post, "nats": send}


async def deliver(world: World, way: str, event: dict[str, Any], secret: str = SECRET) -> bool:
    """A good delivery; whether it was a duplicate."""
    body = json.dumps(event).encode()
    status, answer = await WAYS[way](world, body, signed(body, secret))
    assert (status, answer["ok"]) == (200, True), answer
    return bool(answer["duplicate"])


async def all_wrong(world: World, account: str) -> list[dict[str, Any]]:
    """What is wrong with an account's ledger, or with Stripe's copy of it."""
    cursor, wrong = "meters:", list[dict[str, Any]]()
    while cursor:
        page = await world.ok("ops.ledger.verify", {"account_id": account, "cursor": cursor})
        wrong, cursor = wrong + page["wrong"], page["cursor"]
    return wrong
