"""The command service on a real NATS server: what no message can carry is answered all the same."""

import json
import time
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import nats
from nats.aio.client import Client

from adapters.embedded.nats import EmbeddedNats
from adapters.nats.service import CommandService
from amends.runtime.engine import Engine
from amends.runtime.requests import Endpoint, Identity, Requests

ENGINE = cast("Engine", SimpleNamespace(now_us=lambda: time.time_ns() // 1000))


class Size(msgspec.Struct):
    """How long the answer is to be."""

    length: int


async def of_length(request: Size, identity: Identity) -> dict[str, Any]:
    return {"text": "x" * request.length}


async def kept(caller: str, key: str) -> dict[str, Any] | None:
    return None


async def test_an_answer_that_no_message_can_carry_is_refused_instead_of_lost(
    server: EmbeddedNats, client: Client
) -> None:
    requests = Requests(ENGINE, lambda headers, role: Identity("somebody"), kept)
    endpoint = Endpoint(subject="qry.text.get", request=Size, role="reader", answer=of_length)
    service = CommandService(client, requests, [endpoint], "1.0.0")
    await service.start()
    asking = await nats.connect(server.url)
    for length, good in ((10, True), (1_000_000, True), (1_048_000, False), (3_000_000, False)):
        message = await asking.request("amends.v1.qry.text.get", json.dumps({"length": length}).encode(), timeout=5)
        reply = json.loads(message.data)
        assert reply["ok"] is good
        if not good:
            assert reply["error"]["code"] == "invalid_request"
            assert "ask for less" in reply["error"]["message"]
            assert message.headers is not None
            assert message.headers["Nats-Service-Error-Code"] == "400"
    await asking.close()
    await service.stop(1)
