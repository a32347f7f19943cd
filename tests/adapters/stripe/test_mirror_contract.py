"""One contract for the step that mirrors a credit, over HTTP with Stripe's library and in memory: one transaction."""

import asyncio

import pytest

from actors.steps import MirrorCredit
from adapters.simulated import stripe_steps
from adapters.simulated.stripe_book import StripeBook
from adapters.simulated.stripe_faults import FaultKind
from adapters.stripe import mirror
from amends.ports.steps import Outcome
from tests.adapters.stripe.mirrors import HOUR_S, KEY, Mirroring
from tests.patience import PATIENCE_S

ONE = [(-250, KEY)]


def said(outcome: Outcome) -> tuple[str, str, bool]:
    return outcome.kind, outcome.code, outcome.may_have_run


def noise(book: StripeBook, customer: str, count: int, currency: str = "usd") -> None:
    """Transactions that are not ours."""
    for _ in range(count):
        book.call("POST", f"/v1/customers/{customer}/balance_transactions", {"amount": "5", "currency": currency})


def test_both_take_the_arguments_that_the_actors_intend() -> None:
    fields = mirror.Credit.__struct_fields__
    assert fields == stripe_steps._Credit.__struct_fields__
    assert MirrorCredit.__struct_fields__[: len(fields)] == fields, "what follows is the sender's own"
    assert mirror.FORGOTTEN_US == stripe_steps.FORGOTTEN_US < 24 * 3_600_000_000


async def test_a_credit_becomes_one_transaction_below_zero_that_names_its_ledger_key(mirroring: Mirroring) -> None:
    outcome = await mirroring.credit()
    assert said(outcome) == ("done", "", True)
    (made,) = mirroring.book.of("customer_balance_transaction").values()
    assert outcome.data == {"transaction": made["id"]}
    assert (made["amount"], made["currency"], made["ending_balance"]) == (-250, "usd", -250)
    assert made["metadata"] == {"ledger_key": KEY, "source": "amends"}
    assert mirroring.asked() == [f"POST {KEY}"]


async def test_the_same_credit_twice_is_one_transaction(mirroring: Mirroring) -> None:
    first, second = await mirroring.credit(), await mirroring.credit()
    assert first == second
    assert mirroring.made() == ONE


@pytest.mark.parametrize(("kind", "then"), [("cut", ONE), ("cut_before", [])])
async def test_of_a_lost_reply_nobody_knows_and_again_it_is_one(
    mirroring: Mirroring, kind: FaultKind, then: list[tuple[int, str]]
) -> None:
    mirroring.fault(kind)
    assert said(await mirroring.credit()) == ("unknown", "stripe_unreachable", True)
    assert mirroring.made() == then
    assert said(await mirroring.credit()) == ("done", "", True)
    assert mirroring.made() == ONE


async def test_an_error_of_stripe_is_unknown_and_the_same_key_mends_it(mirroring: Mirroring) -> None:
    mirroring.fault("error")
    assert said(await mirroring.credit()) == ("unknown", "stripe_error", True)
    assert said(await mirroring.credit()) == ("done", "", True)
    assert mirroring.made() == ONE


@pytest.mark.parametrize(("kind", "keys"), [("stored_error", ["", "#1"]), ("done_stored_error", [""])])
async def test_a_stored_error_comes_again_and_the_next_generation_looks_before_it_sends(
    mirroring: Mirroring, kind: FaultKind, keys: list[str]
) -> None:
    mirroring.fault(kind)
    assert said(await mirroring.credit()) == ("unknown", "stripe_error", True)
    again = await mirroring.credit()
    assert said(again) == ("unknown", "stripe_stored_error", True)
    assert again.data["replayed"] is True
    outcome = await mirroring.credit(generation=1, look_up=True)
    assert said(outcome) == ("done", "", True)
    assert mirroring.made() == ONE
    assert outcome.data["transaction"] in mirroring.book.of("customer_balance_transaction")
    assert sorted({each.key for each in mirroring.book.seen} - {""}) == [f"{KEY}{end}" for end in keys]


async def test_a_key_that_stripe_has_forgotten_is_looked_up_before_it_is_sent(mirroring: Mirroring) -> None:
    first = await mirroring.credit()
    noise(mirroring.book, mirroring.customer, 250)  # so that it stands on the third page
    mirroring.book.advance(25 * HOUR_S)
    second = await mirroring.credit()
    assert second == first
    assert len(mirroring.made()) == 251
    assert mirroring.asked()[-3:] == ["GET"] * 3


async def test_what_the_look_up_does_not_find_is_sent(mirroring: Mirroring) -> None:
    mirroring.fault("cut_before")
    assert (await mirroring.credit()).kind == "unknown"
    mirroring.book.advance(25 * HOUR_S)
    assert said(await mirroring.credit()) == ("done", "", True)
    assert mirroring.made() == ONE


@pytest.mark.parametrize(("hours", "looks"), [(22.9, 0), (23.0, 1)])
async def test_it_looks_an_hour_before_stripe_may_forget(mirroring: Mirroring, hours: float, looks: int) -> None:
    mirroring.book.advance(hours * HOUR_S)
    assert (await mirroring.credit()).kind == "done"
    assert mirroring.asked().count("GET") == looks


async def test_without_the_look_up_a_forgotten_key_would_credit_twice(mirroring: Mirroring) -> None:
    """What the contract rests on: the simulator forgets as Stripe does."""
    await mirroring.credit()
    mirroring.book.advance(25 * HOUR_S)
    await mirroring.credit(first_us=mirroring.now_us())
    assert mirroring.made() == ONE * 2


async def test_more_transactions_than_may_be_read_leave_it_open_and_nothing_is_sent(mirroring: Mirroring) -> None:
    noise(mirroring.book, mirroring.customer, 201)
    assert said(await mirroring.credit(look_up=True, max_pages=2)) == ("unknown", "stripe_too_many", True)
    assert len(mirroring.made()) == 201
    assert said(await mirroring.credit(look_up=True, max_pages=3)) == ("done", "", True)


async def test_the_same_key_with_another_amount_is_refused_and_credits_nothing(mirroring: Mirroring) -> None:
    await mirroring.credit()
    assert said(await mirroring.credit(amount_minor=251)) == ("failed", "stripe_idempotency", True)
    assert said(await mirroring.credit(amount_minor=251, look_up=True)) == ("failed", "stripe_idempotency", True)
    assert mirroring.made() == ONE


async def test_a_customer_that_is_not_there_is_refused_and_that_is_kept_under_the_key(
    mirroring: Mirroring,
) -> None:
    first = await mirroring.credit(customer="cus_nobody")
    assert said(first) == ("failed", "stripe_refused", False)
    assert "cus_nobody" in first.message
    second = await mirroring.credit(customer="cus_nobody")
    assert (said(second), second.data["replayed"]) == (said(first), True)
    assert said(await mirroring.credit(customer="cus_nobody", look_up=True)) == ("failed", "stripe_refused", True)


async def test_a_refusal_whose_cause_is_mended_needs_another_generation(mirroring: Mirroring) -> None:
    mirroring.book.call(
        "POST", f"/v1/customers/{mirroring.customer}/balance_transactions", {"amount": "5", "currency": "eur"}
    )
    assert said(await mirroring.credit()) == ("failed", "stripe_refused", False)
    mirroring.book.get("customer", mirroring.customer)["currency"] = "usd"
    assert said(await mirroring.credit()) == ("failed", "stripe_refused", False)
    assert said(await mirroring.credit(generation=1, look_up=True)) == ("done", "", True)
    assert mirroring.made() == [(5, ""), *ONE]


async def test_another_currency_than_the_customers_is_refused(mirroring: Mirroring) -> None:
    mirroring.book.call(
        "POST", f"/v1/customers/{mirroring.customer}/balance_transactions", {"amount": "5", "currency": "eur"}
    )
    assert said(await mirroring.credit()) == ("failed", "stripe_refused", False)
    assert mirroring.made() == [(5, "")]


async def test_an_amount_that_fails_validation_is_refused_and_not_kept(mirroring: Mirroring) -> None:
    assert said(await mirroring.credit(currency="dollars")) == ("failed", "stripe_refused", False)
    assert said(await mirroring.credit()) == ("done", "", True)


@pytest.mark.parametrize("look_up", [False, True])
async def test_a_wrong_api_key_is_refused_and_not_repeated(mirroring: Mirroring, look_up: bool) -> None:
    outcome = await mirroring.credit(api_key="sk_live_very_secret_indeed", look_up=look_up)
    assert said(outcome) == ("failed", "stripe_unauthorized", look_up)
    assert "very_secret" not in outcome.message


async def test_a_limited_request_has_not_run(mirroring: Mirroring) -> None:
    mirroring.fault("rate_limit")
    assert said(await mirroring.credit()) == ("failed", "stripe_rate_limited", False)
    assert said(await mirroring.credit()) == ("done", "", True)
    assert mirroring.made() == ONE


async def test_the_same_key_under_way_is_unknown_until_it_is_done(mirroring: Mirroring) -> None:
    mirroring.fault("delay", seconds=0.5)
    first = asyncio.create_task(mirroring.credit())
    async with asyncio.timeout(PATIENCE_S):
        while not mirroring.book.keys.kept:
            await asyncio.sleep(0.01)
        seen = [await mirroring.credit()]
        while seen[-1].kind != "done":
            await asyncio.sleep(0.05)
            seen.append(await mirroring.credit())
    assert {said(outcome) for outcome in seen[:-1]} == {("unknown", "stripe_in_flight", True)}
    assert await first == seen[-1]
    assert mirroring.made() == ONE


async def test_stripe_may_say_so_of_a_key_that_nobody_sees_under_way(mirroring: Mirroring) -> None:
    mirroring.fault("in_flight")
    assert said(await mirroring.credit()) == ("unknown", "stripe_in_flight", True)
    assert said(await mirroring.credit()) == ("done", "", True)


async def test_of_what_is_not_answered_in_time_nobody_knows_and_again_it_is_one(mirroring: Mirroring) -> None:
    mirroring.fault("delay", seconds=0.6)
    began = asyncio.get_running_loop().time()
    assert said(await mirroring.credit(timeout_ms=200)) == ("unknown", "stripe_timeout", True)
    assert 0.2 <= asyncio.get_running_loop().time() - began < PATIENCE_S
    async with asyncio.timeout(PATIENCE_S):
        while (await mirroring.credit()).kind != "done":
            await asyncio.sleep(0.05)
    assert mirroring.made() == ONE


async def test_where_nobody_listens_it_has_not_run(mirroring: Mirroring) -> None:
    await mirroring.up(False)
    outcome = await mirroring.credit()
    assert said(outcome) == ("failed", "stripe_unreachable", False)
    assert outcome.message
    await mirroring.up(True)
    assert said(await mirroring.credit()) == ("done", "", True)
    assert mirroring.made() == ONE


@pytest.mark.parametrize(
    ("kind", "code"),
    [("error", "stripe_error"), ("rate_limit", "stripe_rate_limited"), ("cut_before", "stripe_unreachable")],
)
async def test_a_look_up_that_fails_leaves_open_what_earlier_tries_did(
    mirroring: Mirroring, kind: FaultKind, code: str
) -> None:
    # The client asks once more by itself where a connection that was kept open is cut under a question.
    mirroring.fault(kind, times=2, match="GET")
    assert said(await mirroring.credit(look_up=True)) == ("unknown", code, True)
    mirroring.book.faults.mend()
    assert mirroring.made() == []
    await mirroring.up(False)
    assert said(await mirroring.credit(look_up=True)) == ("unknown", "stripe_unreachable", True)


async def test_a_try_that_is_cancelled_ends_at_once_and_the_next_one_knows(mirroring: Mirroring) -> None:
    mirroring.fault("delay", seconds=0.4)
    task = asyncio.create_task(mirroring.credit())
    await asyncio.wait({task}, timeout=0.1)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(PATIENCE_S):
        while (await mirroring.credit()).kind != "done":
            await asyncio.sleep(0.05)
    assert mirroring.made() == ONE


async def test_two_customers_do_not_meet_in_a_look_up(mirroring: Mirroring) -> None:
    await mirroring.credit()
    other = str(mirroring.book.call("POST", "/v1/customers")["id"])
    outcome = await mirroring.credit(customer=other, ledger_key="credit:meter_2:offline", look_up=True)
    assert outcome.kind == "done"
    assert mirroring.made() == [*ONE, (-250, "credit:meter_2:offline")]
