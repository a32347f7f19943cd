"""Payments, checkout, refunds and disputes at the simulated Stripe, through Stripe's own library: which events come."""

from typing import Any

import pytest
import stripe

from adapters.simulated import stripe_checkout as checkout
from adapters.simulated.stripe_disputes import close_dispute, open_dispute, withdraw_funds
from adapters.simulated.stripe_errors import Refusal
from adapters.simulated.stripe_refunds import settle_refund
from adapters.simulated.stripe_server import StripeSimulator


async def events(client: stripe.StripeClient, *leaving_out: str) -> list[str]:
    """Types of all events, the oldest first."""
    found = [each.type async for each in (await client.v1.events.list_async({"limit": 100})).auto_paging_iter()]
    return [name for name in reversed(found) if not name.startswith(("customer", *leaving_out))]


async def paid(client: stripe.StripeClient, amount: int = 1000, method: str = "pm_card_visa") -> stripe.PaymentIntent:
    return await client.v1.payment_intents.create_async(
        {
            "amount": amount, "currency": "usd", "confirm": True, "payment_method": method,
            "metadata": {"account_id": "a1"},
        }
    )  # fmt: skip


async def test_a_confirmed_payment_has_received_its_amount(client: stripe.StripeClient) -> None:
    customer = (await client.v1.customers.create_async()).id
    intent = await client.v1.payment_intents.create_async(
        {"amount": 1000, "currency": "usd", "customer": customer, "metadata": {"account_id": "a1"}}
    )
    assert (intent.status, intent.amount_received) == ("requires_payment_method", 0)
    intent = await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    assert (intent.status, intent.amount_received, intent.customer) == ("succeeded", 1000, customer)
    assert await events(client) == ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]
    told = (await client.v1.events.list_async({"type": "payment_intent.succeeded"})).data[0]
    shown = told.data.object.to_dict()
    assert (shown["id"], shown["amount_received"], shown["metadata"]) == (intent.id, 1000, {"account_id": "a1"})
    assert (await client.v1.events.retrieve_async(told.id)).type == "payment_intent.succeeded"
    with pytest.raises(stripe.InvalidRequestError, match="status of succeeded"):
        await client.v1.payment_intents.confirm_async(intent.id)


async def test_an_event_shows_its_object_as_it_was(client: stripe.StripeClient) -> None:
    intent = await paid(client)
    (created,) = (await client.v1.events.list_async({"type": "payment_intent.created"})).data
    assert created.data.object.to_dict()["status"] == "requires_payment_method"
    assert (await client.v1.payment_intents.retrieve_async(intent.id)).status == "succeeded"


async def test_of_a_hold_a_part_is_captured_and_received(client: stripe.StripeClient) -> None:
    intent = await client.v1.payment_intents.create_async(
        {
            "amount": 1000, "currency": "usd", "capture_method": "manual", "confirm": True,
            "payment_method": "pm_card_visa",
        }
    )  # fmt: skip
    assert (intent.status, intent.amount_capturable, intent.amount_received) == ("requires_capture", 1000, 0)
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 1001})
    intent = await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 400})
    assert (intent.status, intent.amount, intent.amount_received, intent.amount_capturable) == (
        "succeeded", 1000, 400, 0,
    )  # fmt: skip
    assert (await events(client))[-1] == "payment_intent.succeeded"


async def test_a_payment_that_is_cancelled_receives_nothing(client: stripe.StripeClient) -> None:
    intent = await client.v1.payment_intents.create_async({"amount": 1000, "currency": "usd"})
    assert (await client.v1.payment_intents.cancel_async(intent.id)).status == "canceled"
    assert await events(client) == ["payment_intent.created", "payment_intent.canceled"]


# --- checkout ----------------------------------------------------------------------------------------


async def session_of(client: stripe.StripeClient, mode: str = "payment") -> stripe.checkout.Session:
    price = {"currency": "usd", "unit_amount": 700, "product_data": {"name": "credit"}}
    asked: Any = {
        "mode": mode, "line_items": [{"quantity": 2, "price_data": price}], "metadata": {"account_id": "a1"},
        "payment_intent_data": {"metadata": {"of": "intent"}}, "success_url": "shop/thanks",
    }  # fmt: skip
    return await client.v1.checkout.sessions.create_async(asked)


async def test_a_session_that_is_paid_at_once_has_two_events_for_one_payment(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    session = await session_of(client)
    assert (session.status, session.payment_status, session.amount_total) == ("open", "unpaid", 1400)
    checkout.complete(simulator.book, session.id, paid=True)
    session = await client.v1.checkout.sessions.retrieve_async(session.id)
    assert (session.status, session.payment_status) == ("complete", "paid")
    intent = await client.v1.payment_intents.retrieve_async(str(session.payment_intent))
    assert (intent.amount_received, intent.metadata.to_dict()) == (1400, {"of": "intent"})
    assert await events(client, "charge", "payment_intent.created") == [
        "payment_intent.succeeded", "checkout.session.completed",
    ]  # fmt: skip
    with pytest.raises(Refusal):
        checkout.complete(simulator.book, session.id, paid=True)


@pytest.mark.parametrize(("paid_later", "last"), [(True, "succeeded"), (False, "failed")])
async def test_a_delayed_payment_is_complete_and_unpaid_first(
    simulator: StripeSimulator, client: stripe.StripeClient, paid_later: bool, last: str
) -> None:
    session = await session_of(client)
    checkout.complete(simulator.book, session.id, paid=False)
    (completed,) = (await client.v1.events.list_async({"type": "checkout.session.completed"})).data
    assert completed.data.object.to_dict()["payment_status"] == "unpaid"
    checkout.settle(simulator.book, session.id, paid=paid_later)
    session = await client.v1.checkout.sessions.retrieve_async(session.id)
    assert session.payment_status == ("paid" if paid_later else "unpaid")
    assert (await events(client))[-1] == f"checkout.session.async_payment_{last}"
    if paid_later:
        with pytest.raises(Refusal):
            checkout.settle(simulator.book, session.id, paid=True)


async def test_a_subscriptions_session_has_no_payment_intent(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    session = await session_of(client, "subscription")
    checkout.complete(simulator.book, session.id, paid=True)
    session = await client.v1.checkout.sessions.retrieve_async(session.id)
    assert (session.mode, session.payment_intent, session.payment_status) == ("subscription", None, "paid")


# --- refunds -----------------------------------------------------------------------------------------


async def test_refunds_in_parts_never_come_to_more_than_was_captured(client: stripe.StripeClient) -> None:
    intent = await paid(client)
    first = await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 300})
    assert (first.status, first.amount, first.payment_intent) == ("succeeded", 300, intent.id)
    with pytest.raises(stripe.InvalidRequestError) as more:
        await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 701})
    assert more.value.code == "amount_too_large"
    rest = await client.v1.refunds.create_async({"charge": str(intent.latest_charge)})
    assert rest.amount == 700
    with pytest.raises(stripe.InvalidRequestError) as none_left:
        await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert none_left.value.code == "charge_already_refunded"
    charge = await client.v1.charges.retrieve_async(str(intent.latest_charge))
    assert (charge.amount_refunded, charge.refunded) == (1000, True)
    assert (await events(client))[-4:] == ["refund.created", "charge.refunded"] * 2
    assert len((await client.v1.refunds.list_async({"payment_intent": intent.id})).data) == 2


async def test_a_pending_refund_is_created_and_succeeds_later(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    intent = await paid(client, method="pm_card_pendingRefund")
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert refund.status == "pending"
    settle_refund(simulator.book, refund.id, "succeeded")
    (created,) = (await client.v1.events.list_async({"type": "refund.created"})).data
    (settled,) = (await client.v1.events.list_async({"type": "refund.updated"})).data
    assert created.request is not None
    assert settled.request is not None
    assert (created.request.id is None, settled.request.id) == (False, None)  # no request of ours has settled it
    assert (await client.v1.refunds.retrieve_async(refund.id)).status == "succeeded"
    assert (await events(client))[-1] == "refund.updated"
    await client.v1.refunds.update_async(refund.id, {"metadata": {"note": "x"}})
    updates = (await client.v1.events.list_async({"type": "refund.updated"})).data
    assert [each.data.object.to_dict()["status"] for each in updates] == ["succeeded", "succeeded"]


async def test_a_refund_may_fail_after_it_had_succeeded_and_the_amount_can_be_refunded_again(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    intent = await paid(client)
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id})
    settle_refund(simulator.book, refund.id, "failed")
    assert (await events(client))[-2:] == ["refund.updated", "refund.failed"]
    failed = await client.v1.refunds.retrieve_async(refund.id)
    assert (failed.status, failed.failure_reason) == ("failed", "expired_or_canceled_card")
    with pytest.raises(Refusal):
        settle_refund(simulator.book, refund.id, "succeeded")
    assert (await client.v1.refunds.create_async({"payment_intent": intent.id})).status == "succeeded"


# --- disputes ----------------------------------------------------------------------------------------


async def test_a_disputed_amount_is_withdrawn_and_comes_back_when_it_is_won(client: stripe.StripeClient) -> None:
    await paid(client, method="pm_card_createDispute")
    (dispute,) = (await client.v1.disputes.list_async()).data
    assert [(each.amount, each.net) for each in dispute.balance_transactions] == [(-1000, -2500)]
    won = await client.v1.disputes.update_async(dispute.id, {"evidence": {"uncategorized_text": "winning_evidence"}})
    assert (won.status, [each.amount for each in won.balance_transactions]) == ("won", [-1000, 1000])
    assert len({each.id for each in won.balance_transactions}) == 2
    assert (await events(client))[-4:] == [
        "charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated",
        "charge.dispute.closed",
    ]  # fmt: skip


async def test_an_inquiry_withdraws_nothing_until_it_becomes_a_dispute(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    intent = await paid(client)
    opened = open_dispute(simulator.book, intent.id, 400, withdraw=False)
    dispute = await client.v1.disputes.retrieve_async(opened["id"])
    assert (dispute.status, dispute.amount, dispute.balance_transactions) == ("warning_needs_response", 400, [])
    withdraw_funds(simulator.book, dispute.id)
    with pytest.raises(Refusal):
        withdraw_funds(simulator.book, dispute.id)
    assert (await client.v1.disputes.close_async(dispute.id)).status == "lost"
    with pytest.raises(Refusal):
        close_dispute(simulator.book, dispute.id, won=True)
    assert (await events(client))[-3:] == [
        "charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.closed",
    ]  # fmt: skip
