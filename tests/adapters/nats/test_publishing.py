"""What is no acknowledgement is an outage, not an exception."""

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from nats.aio.client import Client
from nats.errors import BadSubjectError, MaxPayloadError, NoRespondersError
from nats.js.errors import APIError, ServiceUnavailableError

from adapters.embedded.nats import EmbeddedNats
from adapters.nats.publishing import JetStreamPublisher
from amends.ports.bus import NOT_TOGETHER, Outgoing, Published

SUBJECT, TRACE = "amends.v1.evt.node.n1.ready", ("t" * 32, "s" * 16)


def one(message_id: str) -> Outgoing:
    return Outgoing(SUBJECT, b"{}", message_id, TRACE)


async def answered(error: Exception) -> Published:
    """What a publish comes to that the driver answers with this error."""

    async def publish(*args: Any, **options: Any) -> None:
        raise error

    client: Any = SimpleNamespace(is_connected=True, jetstream=lambda timeout: SimpleNamespace(publish=publish))
    return await JetStreamPublisher(client).publish("s", b"{}", "evt_1", ("t", "s"))


@pytest.mark.parametrize("error", [json.JSONDecodeError("Expecting value", "", 0), TypeError("no such field")])
async def test_an_answer_that_is_no_acknowledgement_counts_as_none(error: Exception) -> None:
    found = await answered(error)
    assert (found.kind, found.code) == ("down", "bad_ack")


@pytest.mark.parametrize(
    ("err_code", "kind"),
    [
        (10054, "poison"), (10097, "poison"), (10077, "down"), (10109, "down"), (10059, "down"), (10118, "down"),
        (10167, "down"), (10002, "down"), (10003, "down"), (10023, "down"), (10028, "down"), (10039, "down"),
        (10047, "down"), (10053, "down"), (10060, "down"), (10071, "down"), (10076, "down"), (10008, "down"),
        (10165, "down"), (400, "down"), (99999, "down"),
    ],
)  # fmt: skip
async def test_only_what_the_broker_says_of_this_very_message_is_poison(err_code: int, kind: str) -> None:
    found = await answered(APIError(code=400, err_code=err_code, description="said by the broker"))
    assert (found.kind, found.code) == (kind, f"jetstream_{err_code}")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MaxPayloadError(), "poison"),
        (BadSubjectError(), "poison"),
        (ServiceUnavailableError(code=503, err_code=10008, description="no leader"), "down"),
        (TimeoutError(), "down"),
        (ConnectionResetError(), "down"),
    ],
)
async def test_what_never_reached_the_broker_is_judged_alike(error: Exception, kind: str) -> None:
    assert (await answered(error)).kind == kind


@pytest.mark.parametrize("answer", [b'{"stream":"S","seq":9}', b'{"stream":"S","seq":9,"count":1}'])
async def test_a_server_that_knows_no_batches_is_told_by_what_it_counts(answer: bytes) -> None:
    async def publish(*args: Any, **options: Any) -> None: ...

    async def request(*args: Any, **options: Any) -> Any:
        return SimpleNamespace(data=answer)

    client: Any = SimpleNamespace(is_connected=True, jetstream=lambda timeout: None, publish=publish, request=request)
    found = await JetStreamPublisher(client).publish_together([one("evt_1"), one("evt_2")])
    assert (found.kind, found.code) == ("down", NOT_TOGETHER)


async def test_of_messages_that_go_together_none_is_blamed(client: Client) -> None:
    publisher = JetStreamPublisher(client)
    await publisher.create_streams()
    large = Outgoing(SUBJECT, b"x" * (client.max_payload + 1), "evt_2", TRACE)
    found = await publisher.publish_together([one("evt_1"), large, one("evt_3")])
    assert (found.kind, found.code) == ("down", "too_large")
    assert (await publisher.publish(SUBJECT, b"{}", "evt_1", TRACE)).kind == "ok"  # it was not taken


@pytest.mark.parametrize("answer", [b"", b"[]", b"no JSON", b'{"error":{}}'])
async def test_an_answer_to_a_batch_that_is_none_counts_as_none(answer: bytes) -> None:
    async def request(*args: Any, **options: Any) -> Any:
        return SimpleNamespace(data=answer)

    client: Any = SimpleNamespace(is_connected=True, jetstream=lambda timeout: None, request=request)
    assert (await JetStreamPublisher(client).publish_together([one("evt_1")])).kind == "down"


async def test_the_broker_tells_its_clock(client: Client) -> None:
    publisher = JetStreamPublisher(client)
    assert await publisher.clock_us() is None  # it does not tell before there is a stream
    await publisher.create_streams()
    before_us = time.time_ns() // 1000
    told = await publisher.clock_us()
    assert told is not None
    assert before_us <= told <= time.time_ns() // 1000


async def test_a_broker_that_is_away_tells_no_clock(server: EmbeddedNats, client: Client) -> None:
    await server.stop()
    assert await JetStreamPublisher(client).clock_us() is None


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"[]", b'{"ts": 5}', b'{"ts": "2026-01-01T00:00:00"}', b'{"ts": "0001-01-01T00:00:00Z"}',
        NoRespondersError(),
    ],
)  # fmt: skip
async def test_an_answer_without_a_clock_is_none(answer: bytes | Exception) -> None:
    async def request(*args: Any, **options: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(data=answer)

    client: Any = SimpleNamespace(is_connected=True, jetstream=lambda timeout: None, request=request)
    assert await JetStreamPublisher(client).clock_us() is None
