"""Webhooks of the simulated Stripe over real HTTP: signed, tried again, and repeated, reordered and delayed as told."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
import stripe
from aiohttp import web

from adapters.simulated.stripe_server import StripeSimulator
from adapters.simulated.stripe_webhooks import Endpoint, Manner, Send
from adapters.stripe.signatures import BadSignature, verify
from tests.patience import PATIENCE_S

CURRENT, PREVIOUS = "whsec_current", "whsec_previous"


class Receiver:
    """An endpoint that verifies; `answers` are what it says first, 200 after that."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.events: list[dict[str, Any]] = []
        self.reasons: list[str] = []
        self.secrets = [CURRENT]
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        body, header = await request.read(), request.headers.get("Stripe-Signature", "")
        try:
            verify(body, header, self.secrets, time.time())
        except BadSignature as refusal:
            self.reasons.append(refusal.reason)
            return web.Response(status=400)
        assert stripe.Webhook.construct_event(body, header, CURRENT if CURRENT in self.secrets else PREVIOUS)
        self.events.append(json.loads(body))
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]


@pytest.fixture
async def receiver(simulator: StripeSimulator) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    simulator.webhooks.endpoints = [Endpoint(receiver.url, [CURRENT, PREVIOUS])]
    yield receiver
    await simulator.webhooks.close()
    await runner.cleanup()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)


async def test_an_event_is_delivered_once_signed_as_the_library_expects(
    simulator: StripeSimulator, client: stripe.StripeClient, receiver: Receiver
) -> None:
    customer = await client.v1.customers.create_async()
    await until(lambda: not simulator.webhooks.under_way)
    (event,) = receiver.events
    assert (event["type"], event["data"]["object"]["id"]) == ("customer.created", customer.id)
    assert customer.last_response is not None
    assert event["request"]["id"] == customer.last_response.request_id
    (delivery,) = simulator.webhooks.deliveries
    assert (delivery.event, delivery.attempt, delivery.status) == (event["id"], 1, 200)


async def test_what_is_not_taken_is_tried_again_with_a_signature_of_its_own(
    simulator: StripeSimulator, client: stripe.StripeClient, receiver: Receiver
) -> None:
    receiver.answers = [500, 302, 404]
    simulator.webhooks.behave(Manner(retry_s=0.01))
    await client.v1.customers.create_async()
    await until(lambda: not simulator.webhooks.under_way)
    assert [each.status for each in simulator.webhooks.deliveries] == [500, 302, 404, 200]
    assert len(receiver.events) == 4
    assert len(set(receiver.ids())) == 1


async def test_where_nobody_listens_it_gives_up_after_its_tries(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    simulator.webhooks.endpoints = [Endpoint("http://127.0.0.1:1/hook", [CURRENT])]
    simulator.webhooks.behave(Manner(tries=3, retry_s=0.01))
    await client.v1.customers.create_async()
    await until(lambda: not simulator.webhooks.under_way)
    assert [each.status for each in simulator.webhooks.deliveries] == [0, 0, 0]


async def test_events_come_several_times_late_and_out_of_order(
    simulator: StripeSimulator, client: stripe.StripeClient, receiver: Receiver
) -> None:
    simulator.webhooks.behave(Manner(duplicates=3, reorder=8, delay_s=0.2))
    began = time.monotonic()
    for _ in range(8):
        await client.v1.customers.create_async()
    await until(lambda: not simulator.webhooks.under_way)
    assert time.monotonic() - began >= 0.2
    known = list(simulator.book.of("event"))
    assert sorted(receiver.ids()) == sorted(known * 3)
    assert list(dict.fromkeys(receiver.ids())) != known


async def test_what_is_held_goes_out_when_it_is_let_go(
    simulator: StripeSimulator, client: stripe.StripeClient, receiver: Receiver
) -> None:
    simulator.webhooks.behave(Manner(held=True))
    await client.v1.customers.create_async()
    await client.v1.customers.create_async()
    assert (receiver.events, simulator.webhooks.under_way) == ([], 2)
    simulator.webhooks.behave(Manner())
    await until(lambda: not simulator.webhooks.under_way)
    assert sorted(receiver.ids()) == list(simulator.book.of("event"))


async def test_an_endpoint_gets_the_types_that_it_asked_for(
    simulator: StripeSimulator, client: stripe.StripeClient, receiver: Receiver
) -> None:
    simulator.webhooks.endpoints = [Endpoint(receiver.url, [CURRENT], ["charge.succeeded"])]
    await client.v1.payment_intents.create_async(
        {"amount": 5, "currency": "usd", "confirm": True, "payment_method": "pm_card_visa"}
    )
    await until(lambda: not simulator.webhooks.under_way)
    assert [event["type"] for event in receiver.events] == ["charge.succeeded"]


async def test_the_previous_secret_may_sign_and_is_refused_where_it_is_no_longer_known(
    simulator: StripeSimulator, client: stripe.StripeClient, receiver: Receiver
) -> None:
    receiver.secrets = [PREVIOUS]
    simulator.webhooks.behave(Manner(secret=1, tries=1))
    await client.v1.customers.create_async()
    await until(lambda: not simulator.webhooks.under_way)
    assert len(receiver.events) == 1
    receiver.secrets = [CURRENT]
    await client.v1.customers.create_async()
    await until(lambda: not simulator.webhooks.under_way)
    assert len(receiver.events) == len(receiver.reasons) == 1


async def test_one_event_is_sent_five_times_at_once_and_as_a_forger_would(
    simulator: StripeSimulator, client: stripe.StripeClient, receiver: Receiver
) -> None:
    simulator.webhooks.behave(Manner(held=True))
    await client.v1.customers.create_async()
    (event,) = simulator.book.of("event").values()
    assert await simulator.webhooks.send(event, Send(event["id"], times=5)) == [200] * 5
    assert receiver.ids() == [event["id"]] * 5
    for how in (Send("", skew_s=-400), Send("", skew_s=400), Send("", secret=7)):
        assert await simulator.webhooks.send(event, how) == [400]
    past, future, forged = receiver.reasons
    assert re.match(r"signed 4\d\d s ago, which", past)
    assert re.match(r"signed [34]\d\d s in the future, which", future)
    assert forged.startswith("no signature was made with a secret that is configured")


async def told(simulator: StripeSimulator, name: str, answered: int = 200, /, **body: Any) -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{simulator.control_url}/_sim/{name}", json=body) as answer,
    ):
        assert answer.status == answered
        return (await answer.json()).get("data")


async def asked(simulator: StripeSimulator, name: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(f"{simulator.control_url}/_sim/{name}") as answer:
        return await answer.json()


async def test_all_of_it_can_be_told_over_http(
    simulator: StripeSimulator, client: stripe.StripeClient, receiver: Receiver
) -> None:
    await told(simulator, "endpoints", endpoints=[{"url": receiver.url, "secrets": [CURRENT]}])
    await told(simulator, "manner", duplicates=2)
    await told(simulator, "fault", kind="rate_limit")
    with pytest.raises(stripe.RateLimitError):
        await client.v1.customers.create_async()
    await told(simulator, "fault", kind="error", times=5)
    await told(simulator, "mend")
    await told(simulator, "advance", seconds=3600)
    intent = await client.v1.payment_intents.create_async(
        {"amount": 5, "currency": "usd", "confirm": True, "payment_method": "pm_card_pendingRefund"}
    )
    assert intent.created > time.time() + 3500
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert (await told(simulator, "refund-settle", refund=refund.id, status="succeeded"))["status"] == "succeeded"
    dispute = await told(simulator, "dispute", payment_intent=intent.id, withdraw=False)
    await told(simulator, "dispute-withdraw", dispute=dispute["id"])
    assert (await told(simulator, "dispute-close", dispute=dispute["id"], won=True))["status"] == "won"
    await until(lambda: not simulator.webhooks.under_way)
    assert len(receiver.events) == 2 * len(simulator.book.of("event"))
    first = receiver.ids()[0]
    assert await told(simulator, "send", event=first, times=5) == [200] * 5
    assert len((await asked(simulator, "deliveries"))["deliveries"]) == len(receiver.events)
    assert [seen["status"] for seen in await asked(simulator, "requests")] == [429, 200, 200]
    assert intent.id in (await asked(simulator, "state"))["objects"]["payment_intent"]
    await told(simulator, "refuse")
    with pytest.raises(stripe.APIConnectionError):
        await client.v1.customers.list_async()
    await told(simulator, "accept")
    assert (await client.v1.customers.list_async()).data == []


async def test_a_session_is_completed_and_settled_over_http(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    price: Any = {"currency": "usd", "unit_amount": 700, "product_data": {"name": "credit"}}
    session = await client.v1.checkout.sessions.create_async(
        {"mode": "payment", "line_items": [{"quantity": 1, "price_data": price}]}
    )
    done = await told(simulator, "checkout-complete", session=session.id, paid=False)
    assert (done["status"], done["payment_status"]) == ("complete", "unpaid")
    assert (await told(simulator, "checkout-settle", session=session.id))["payment_status"] == "paid"


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("fault", {"kind": "earthquake"}, 400),
        ("fault", {"kind": "refuse"}, 400),
        ("manner", {"duplicates": 6}, 400),
        ("manner", {"duplicate": 2}, 400),
        ("send", {"event": "evt_nobody"}, 400),
        ("dance", {}, 404),
    ],
)
async def test_what_is_not_understood_is_refused(
    simulator: StripeSimulator, name: str, body: dict[str, Any], status: int
) -> None:
    await told(simulator, name, status, **body)
