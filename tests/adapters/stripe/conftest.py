"""A simulated Stripe for each test: with a mirror of either kind, or with Stripe's own library."""

from collections.abc import AsyncIterator

import pytest
import stripe

from adapters.simulated.stripe_book import API_KEY
from adapters.simulated.stripe_server import StripeSimulator
from tests.adapters.stripe.mirrors import Mirroring, in_memory, over_http


@pytest.fixture(params=["over HTTP", "in memory"])
async def mirroring(request: pytest.FixtureRequest) -> AsyncIterator[Mirroring]:
    async with {"over HTTP": over_http, "in memory": in_memory}[request.param]() as mirroring:
        yield mirroring


@pytest.fixture
async def simulator() -> AsyncIterator[StripeSimulator]:
    simulator = StripeSimulator()
    await simulator.start()
    yield simulator
    await simulator.stop()


@pytest.fixture
async def client(simulator: StripeSimulator) -> AsyncIterator[stripe.StripeClient]:
    http = stripe.AIOHTTPClient()
    yield stripe.StripeClient(API_KEY, base_addresses={"api": simulator.url}, http_client=http, max_network_retries=0)
    await http.close_async()  # type: ignore[no-untyped-call]
