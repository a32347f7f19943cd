"""The command service on a real NATS server: what no message can carry is answered all the same."""

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import nats
import pytest
from nats.aio.client import Client

from adapters.embedded.nats import EmbeddedNats
from adapters.nats.answers import Answers
from adapters.nats.service import CommandService
from amends.ports.clock import REAL
from amends.ports.journal import KeptReply
from amends.runtime.engine import Engine
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint, Requests
from tests.patience import PATIENCE_S

ENGINE = cast("Engine", SimpleNamespace(entropy=REAL.entropy, now_us=lambda: time.time_ns() // 1000))


class Size(msgspec.Struct):
    """How long the answer is to be."""

    length: int


async def of_length(request: Size, identity: Identity) -> dict[str, Any]:
    return {"text": "x" * request.length}


async def kept(caller: str, key: str) -> KeptReply | None:
    return None


async def test_an_answer_that_no_message_can_carry_is_refused_instead_of_lost(
    server: EmbeddedNats, client: Client
) -> None:
    requests = Requests(ENGINE, lambda headers, role: Identity("somebody"), kept)
    endpoint = Endpoint(subject="qry.text.get", request=Size, role="reader", answer=of_length)
    service = CommandService(client, requests, [endpoint], "1.0.0", Answers())
    await service.start()
    asking = await nats.connect(server.url)
    for length, good in ((10, True), (1_000_000, True), (1_048_000, False), (3_000_000, False)):
        message = await asking.request(
            "amends.v1.qry.text.get", json.dumps({"length": length}).encode(), timeout=PATIENCE_S
        )
        reply = json.loads(message.data)
        assert reply["ok"] is good
        if not good:
            assert reply["error"]["code"] == "invalid_request"
            assert "ask for less" in reply["error"]["message"]
            assert message.headers is not None
            assert message.headers["Nats-Service-Error-Code"] == "400"
    await asking.close()
    await service.stop(1)


@pytest.mark.parametrize(
    ("reply", "good"),
    [
        ("_INBOX.abc.1", True),
        ("_INBOX_front.abc", True),
        ("_R_.x7Fq", True),
        ("_GR_.abcdef.ghijkl._INBOX.abc", True),
        ("_GR_.abcdef.ghijkl.amends.v1.evt.node.n1.ready", False),
        ("_GR_.abcdef.ghijkl", False),
        ("_INBOX", False),
        ("_INBOXES.abc", False),
        ("_INBOX_other.abc", False),
        ("amends.v1.evt.allocation.a.released", False),
        ("amends.v1.ops.node.drain", False),
        ("$JS.API.STREAM.PURGE.AMENDS_EVT", False),
        ("$SYS.REQ.SERVER.PING", False),
        ("orders", False),
        (" _INBOX.abc", False),
    ],
)
def test_answers_go_to_inboxes_only(reply: str, good: bool) -> None:
    asked: list[str] = []
    answers = Answers(["_INBOX_front."], asked.append)
    assert answers.takes("amends.v1.qry.node.list", reply) is good
    assert (answers.dropped, asked) == ((0, []) if good else (1, ["amends.v1.qry.node.list"]))


async def test_whatever_is_asked_with_another_reply_subject_is_dropped_unread(
    server: EmbeddedNats, client: Client
) -> None:
    # given a service, and somebody who hears everything
    answers, asked = Answers(), []

    async def answer(request: Size, identity: Identity) -> dict[str, Any]:
        asked.append(request.length)
        return {}

    requests = Requests(ENGINE, lambda headers, role: Identity("somebody"), kept)
    endpoint = Endpoint(subject="qry.text.get", request=Size, role="reader", answer=answer)
    service = CommandService(client, requests, [endpoint], "1.0.0", answers)
    await service.start()
    attacker = await nats.connect(server.url)
    heard = await attacker.subscribe("amends.v1.evt.>")
    # when each subject that answers is asked to answer as an event
    info = json.loads((await attacker.request("$SRV.INFO.amends", b"", timeout=PATIENCE_S)).data)
    subjects = ["amends.v1.qry.text.get"]
    for verb in ("PING", "INFO", "STATS"):
        subjects += [f"$SRV.{verb}", f"$SRV.{verb}.amends", f"$SRV.{verb}.amends.{info['id']}"]
    for subject in subjects:
        await attacker.publish(subject, b'{"length": 1}', reply="amends.v1.evt.allocation.a.released")
    # then nothing is said there, nothing was done, and each is counted
    await attacker.request("amends.v1.qry.text.get", b'{"length": 2}', timeout=PATIENCE_S)
    await asyncio.sleep(0.1)
    assert heard.pending_msgs == 0
    assert asked == [2]
    assert answers.dropped == len(subjects)
    # and errors are counted where they were answered
    await attacker.request("amends.v1.qry.text.get", b'{"length": "x"}', timeout=PATIENCE_S)
    stats = json.loads((await attacker.request("$SRV.STATS.amends", b"", timeout=PATIENCE_S)).data)
    assert [each["num_errors"] for each in stats["endpoints"]] == [1]
    await attacker.close()
    await service.stop(1)
