"""The simulated Stripe through Stripe's own library: objects, lists, errors, and idempotency as it is documented."""

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest
import stripe

from adapters.simulated.stripe_book import API_KEY, State
from adapters.simulated.stripe_faults import StripeFault
from adapters.simulated.stripe_keys import MAX_CHARS
from adapters.simulated.stripe_routes import new_book
from adapters.simulated.stripe_server import StripeSimulator
from tests.patience import PATIENCE_S

DAY_S = 24 * 3600.0


def key(value: str) -> stripe.RequestOptions:
    return {"idempotency_key": value}


async def test_customers_are_created_read_and_listed_the_newest_first(client: stripe.StripeClient) -> None:
    made = [await client.v1.customers.create_async({"name": f"c{n}", "metadata": {"n": str(n)}}) for n in range(3)]
    again = await client.v1.customers.retrieve_async(made[1].id)
    assert again.metadata is not None
    assert (again.name, again.metadata.to_dict(), again.balance, again.currency) == ("c1", {"n": "1"}, 0, None)
    listed = await client.v1.customers.list_async()
    assert [each.id for each in listed.data] == [each.id for each in reversed(made)]
    assert not listed.has_more


async def test_a_balance_runs_over_its_transactions(client: stripe.StripeClient) -> None:
    customer = (await client.v1.customers.create_async()).id
    transactions = client.v1.customers.balance_transactions
    made = [
        await transactions.create_async(customer, {"amount": amount, "currency": "USD"}) for amount in (-500, 200, -1)
    ]
    assert [each.ending_balance for each in made] == [-500, -300, -301]
    assert {(each.type, each.currency, each.customer) for each in made} == {("adjustment", "usd", customer)}
    known = await client.v1.customers.retrieve_async(customer)
    assert (known.balance, known.currency) == (-301, "usd")
    assert (await transactions.retrieve_async(customer, made[0].id)).ending_balance == -500
    other = (await client.v1.customers.create_async()).id
    with pytest.raises(stripe.InvalidRequestError, match="No such customer_balance_transaction"):
        await transactions.retrieve_async(other, made[0].id)


async def test_lists_have_cursors_both_ways(client: stripe.StripeClient) -> None:
    ids = [(await client.v1.customers.create_async()).id for _ in range(25)][::-1]

    async def page(**asked: Any) -> tuple[list[str], bool]:
        params: Any = asked
        found = await client.v1.customers.list_async(params)
        return [each.id for each in found.data], found.has_more

    assert await page() == (ids[:10], True)
    assert await page(limit=25) == (ids, False)
    assert await page(limit=10, starting_after=ids[9]) == (ids[10:20], True)
    assert await page(limit=10, starting_after=ids[19]) == (ids[20:], False)
    assert await page(limit=10, ending_before=ids[15]) == (ids[5:15], True)
    assert await page(limit=10, ending_before=ids[10]) == (ids[:10], False)
    assert [each.id async for each in (await client.v1.customers.list_async({"limit": 7})).auto_paging_iter()] == ids
    for params in ({"limit": 101}, {"limit": 0}, {"starting_after": "cus_nobody"}, {"created": {"near": 1}}):
        with pytest.raises(stripe.InvalidRequestError):
            await page(**params)


async def test_lists_can_be_narrowed_by_time(simulator: StripeSimulator, client: stripe.StripeClient) -> None:
    first = await client.v1.customers.create_async()
    simulator.book.advance(DAY_S)
    second = await client.v1.customers.create_async()
    later = await client.v1.customers.list_async({"created": {"gt": first.created}})
    assert [each.id for each in later.data] == [second.id]
    assert second.created - first.created >= DAY_S


async def test_errors_are_of_stripes_kinds_and_name_the_parameter(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as missing:
        await client.v1.customers.retrieve_async("cus_nobody")
    assert (missing.value.http_status, missing.value.code, missing.value.param) == (404, "resource_missing", "id")
    assert (missing.value.request_id or "").startswith("req_")
    typo: Any = {"nmae": "typo"}
    with pytest.raises(stripe.InvalidRequestError) as unknown:
        await client.v1.customers.create_async(typo)
    assert (unknown.value.http_status, unknown.value.code, unknown.value.param) == (400, "parameter_unknown", "nmae")
    fraction: Any = {"amount": 1.5, "currency": "usd"}
    with pytest.raises(stripe.InvalidRequestError) as integer:
        await client.v1.payment_intents.create_async(fraction)
    assert integer.value.code == "parameter_invalid_integer"
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        await client.v1.invoices.list_async()


async def test_another_api_key_opens_nothing_and_is_not_repeated(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    with pytest.raises(stripe.AuthenticationError) as refused:
        await client.v1.customers.list_async(options={"api_key": "sk_test_of_somebody_else"})
    assert "somebody" not in str(refused.value)
    async with aiohttp.ClientSession() as session, session.get(f"{simulator.url}/v1/customers") as answer:
        assert answer.status == 401


# --- idempotency -------------------------------------------------------------------------------------


async def test_the_same_key_and_parameters_get_the_first_answer_again(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    first = await client.v1.customers.create_async({"name": "a"}, key("k"))
    second = await client.v1.customers.create_async({"name": "a"}, key("k"))
    assert first.id == second.id
    assert second.last_response is not None
    headers = second.last_response.headers
    assert (headers["Idempotent-Replayed"], headers["Idempotency-Key"]) == ("true", "k")
    assert first.last_response is not None
    assert headers["Original-Request"] == first.last_response.headers["Request-Id"]
    assert len(simulator.book.of("customer")) == 1


async def test_a_kept_answer_does_not_change_with_its_object(client: stripe.StripeClient) -> None:
    first = await client.v1.customers.create_async({"name": "a"}, key("k"))
    await client.v1.customers.balance_transactions.create_async(first.id, {"amount": -5, "currency": "usd"})
    assert (await client.v1.customers.create_async({"name": "a"}, key("k"))).balance == 0


async def test_the_same_key_with_other_parameters_or_elsewhere_is_an_error(client: stripe.StripeClient) -> None:
    await client.v1.customers.create_async({"name": "a"}, key("k"))
    with pytest.raises(stripe.IdempotencyError):
        await client.v1.customers.create_async({"name": "b"}, key("k"))
    with pytest.raises(stripe.IdempotencyError):
        await client.v1.payment_intents.create_async({"amount": 5, "currency": "usd"}, key("k"))
    with pytest.raises(stripe.InvalidRequestError, match="at most 255"):
        await client.v1.customers.create_async({"name": "a"}, key("k" * (MAX_CHARS + 1)))


async def test_a_500_is_kept_once_the_endpoint_has_begun(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    simulator.book.faults.add(StripeFault("stored_error"))
    for replayed in (None, "true", "true"):
        with pytest.raises(stripe.APIError) as broken:
            await client.v1.customers.create_async({}, key("k"))
        assert broken.value.http_status == 500
        assert (broken.value.headers or {}).get("Idempotent-Replayed") == replayed
    assert (await client.v1.customers.create_async({}, key("k2"))).id


async def test_a_refusal_is_kept_and_a_failed_validation_is_not(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    for name, replayed in (("begun", "true"), ("invalid", None)):
        for again in (None, replayed):
            customer, currency = ("cus_nobody", "usd") if name == "begun" else ("cus_nobody", "dollars")
            with pytest.raises(stripe.InvalidRequestError) as refused:
                await client.v1.customers.balance_transactions.create_async(
                    customer, {"amount": -5, "currency": currency}, key(name)
                )
            assert (refused.value.headers or {}).get("Idempotent-Replayed") == again
    assert list(simulator.book.keys.kept) == ["begun"]


async def test_a_key_is_forgotten_after_24_hours_of_the_simulators_clock(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    first = await client.v1.customers.create_async({}, key("k"))
    simulator.book.advance(DAY_S - 60)
    assert (await client.v1.customers.create_async({}, key("k"))).id == first.id
    simulator.book.advance(60)
    assert (await client.v1.customers.create_async({}, key("k"))).id != first.id


async def test_a_key_that_is_under_way_is_a_conflict(simulator: StripeSimulator, client: stripe.StripeClient) -> None:
    simulator.book.faults.add(StripeFault("delay", seconds=0.5))
    first = asyncio.create_task(client.v1.customers.create_async({}, key("k")))
    async with asyncio.timeout(PATIENCE_S):
        while not simulator.book.keys.kept:
            await asyncio.sleep(0.01)
    with pytest.raises(stripe.APIError) as conflict:
        await client.v1.customers.create_async({}, key("k"))
    assert (conflict.value.http_status, conflict.value.code) == (409, None)
    assert conflict.value.error is not None
    assert conflict.value.error.code == "idempotency_key_in_use"
    assert (await first).id == (await client.v1.customers.create_async({}, key("k"))).id


async def test_the_librarys_own_retries_are_answered_with_one_object(simulator: StripeSimulator) -> None:
    http = stripe.AIOHTTPClient()
    client = stripe.StripeClient(
        API_KEY, base_addresses={"api": simulator.url}, http_client=http, max_network_retries=2
    )
    simulator.book.faults.add(StripeFault("error"))
    simulator.book.faults.add(StripeFault("cut"))
    made = await client.v1.customers.create_async()  # with a key that the library invents
    assert list(simulator.book.of("customer")) == [made.id]
    await http.close_async()  # type: ignore[no-untyped-call]


# --- faults and what is kept -------------------------------------------------------------------------


async def test_faults_meet_the_requests_they_are_for_as_often_as_they_were_asked_for(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    simulator.book.faults.add(StripeFault("rate_limit", 2, match="POST /v1/customers"))
    simulator.book.faults.add(StripeFault("error", match="GET"))
    for _ in range(2):
        with pytest.raises(stripe.RateLimitError):
            await client.v1.customers.create_async()
    assert (await client.v1.customers.create_async()).id
    with pytest.raises(stripe.APIError):
        await client.v1.customers.list_async()
    assert (await client.v1.customers.list_async()).data
    assert [seen.status for seen in simulator.book.seen] == [429, 429, 200, 500, 200]


async def test_while_it_refuses_nobody_is_connected_and_afterwards_all_is_there(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    url, made = simulator.url, await client.v1.customers.create_async()
    await simulator.refuse()
    with pytest.raises(stripe.APIConnectionError) as refused:
        await client.v1.customers.retrieve_async(made.id)
    assert isinstance(refused.value.__cause__, aiohttp.ClientConnectorError)
    await simulator.accept()
    assert simulator.url == url
    assert (await client.v1.customers.retrieve_async(made.id)).id == made.id


async def test_a_request_that_was_under_way_when_it_refused_is_done(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    simulator.book.faults.add(StripeFault("delay", seconds=0.5))
    lost = asyncio.create_task(client.v1.customers.create_async({}, key("k")))
    async with asyncio.timeout(PATIENCE_S):
        while not simulator.book.keys.kept:
            await asyncio.sleep(0.01)
    await simulator.refuse()
    with pytest.raises(stripe.APIConnectionError):
        await lost
    await simulator.accept()
    async with asyncio.timeout(PATIENCE_S):
        while not simulator.book.of("customer"):
            await asyncio.sleep(0.01)
    assert (await client.v1.customers.create_async({}, key("k"))).id
    assert len(simulator.book.of("customer")) == 1


async def test_another_simulator_goes_on_with_what_one_has_kept(
    simulator: StripeSimulator, client: stripe.StripeClient
) -> None:
    made = await client.v1.customers.create_async({}, key("k"))
    state = msgspec.json.decode(msgspec.json.encode(simulator.book.state()), type=State)
    simulator.book = new_book(simulator.book.now_s, state=state)
    assert (await client.v1.customers.create_async({}, key("k"))).id == made.id
    assert (await client.v1.customers.create_async()).id not in (made.id, "")
