"""What is mirrored can be read back, for a comparison with the ledger."""

import aiohttp
import pytest
import stripe

from adapters.simulated.stripe_book import API_KEY
from adapters.simulated.stripe_faults import StripeFault
from adapters.simulated.stripe_server import StripeSimulator
from adapters.stripe.api import StripeApi
from adapters.stripe.ledger import Mirrored, StripeLedger
from adapters.stripe.outcomes import outcome_of
from amends.values.errors import Rejected, TooSlow, Unavailable


def credit(simulator: StripeSimulator, customer: str, amount: int, metadata: dict[str, str]) -> str:
    given = {"amount": str(amount), "currency": "usd", "metadata": metadata}
    return str(simulator.book.call("POST", f"/v1/customers/{customer}/balance_transactions", given)["id"])


async def test_what_is_ours_is_read_by_ledger_key_and_a_double_is_seen(simulator: StripeSimulator) -> None:
    customer = simulator.book.call("POST", "/v1/customers")["id"]
    ours = [credit(simulator, customer, -n, {"ledger_key": f"k{n}", "source": "amends"}) for n in range(1, 151)]
    again = credit(simulator, customer, -7, {"ledger_key": "k7", "source": "amends"})
    credit(simulator, customer, -9, {"ledger_key": "k9", "source": "somebody else"})
    credit(simulator, customer, 9, {})
    api = StripeApi(API_KEY, api_base=simulator.url)
    found = await StripeLedger(api).mirrored(customer)
    assert len(found) == 150
    assert found["k1"] == [Mirrored(ours[0], 1, "usd")]
    assert found["k7"] == [Mirrored(again, 7, "usd"), Mirrored(ours[6], 7, "usd")]
    with pytest.raises(TooSlow, match="more than 100 balance transactions"):
        await StripeLedger(api, max_pages=1).mirrored(customer)
    await api.close()


async def test_who_cannot_be_asked_is_unavailable_and_no_key_is_told(simulator: StripeSimulator) -> None:
    api = StripeApi(API_KEY, api_base=simulator.url + "/")
    with pytest.raises(Rejected, match="No such customer: 'cus_nobody'"):  # it can be asked of others
        await StripeLedger(api).mirrored("cus_nobody")
    simulator.book.faults.add(StripeFault("error"))
    with pytest.raises(Unavailable, match="An unknown error"):
        await StripeLedger(api).mirrored("cus_nobody")
    await simulator.refuse()
    with pytest.raises(Unavailable, match="Unexpected error communicating with Stripe"):
        await StripeLedger(api).mirrored("cus_nobody")
    await api.close()


def test_an_answer_that_repeats_the_key_does_not_bring_it_into_a_message() -> None:
    api = StripeApi("sk_live_very_secret")
    shown = api.without_key("a proxy says:\n <h1>sk_live_very_secret</h1> " + "x" * 1000)
    assert shown.startswith("a proxy says: <h1>(the API key)</h1> xxx")
    assert len(shown) == 300


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [(502, "unknown", "stripe_error"), (404, "unknown", "stripe_error"), (424, "unknown", "stripe_error")],
)
def test_an_answer_that_is_not_of_stripes_shape_leaves_it_open(status: int, kind: str, code: str) -> None:
    outcome = outcome_of(stripe.APIError("<html>", "<html>", status), "a gateway's page")
    assert (outcome.kind, outcome.code, outcome.may_have_run) == (kind, code, True)


def test_an_answer_that_ends_in_its_middle_leaves_it_open() -> None:
    outcome = outcome_of(aiohttp.ClientPayloadError("not enough data"), "")
    assert (outcome.kind, outcome.code, outcome.may_have_run) == ("unknown", "stripe_unreachable", True)
