"""The simulated provider and the service hear the same story, and say the same in every step of it."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.nats.provider_service import ProviderService
from adapters.nats.providers import ProviderSteps
from adapters.simulated.providers import SimulatedProviders, SimulatedProviderSteps
from amends.ports.steps import Outcome
from tests.adapters.providers.benches import FILES, Scripted, call

NOW_US = 1_700_000_000_000_000

ASKED = st.fixed_dictionaries({
    "op": st.sampled_from(["grant", "grant", "revoke", "revoke", "verify", "usage", "capabilities"]),
    "grant": st.sampled_from(["grant_1", "grant_2", "grant_3"]),
    "namespace_id": st.sampled_from(["data"] * 9 + ["missing"]),
    "node_id": st.sampled_from(["n1"] * 9 + ["n2"]),
    "node_address": st.sampled_from(["10.0.0.5"] * 9 + ["10.0.0.6"]),
    "mode": st.sampled_from(["rw", "rw", "ro"]),
    "epoch": st.sampled_from([5] * 9 + [4, 6]),
})  # fmt: skip


class Straight:
    """A client that hands each request to the service, without a server between."""

    def __init__(self, service: ProviderService) -> None:
        self._service = service

    async def request(self, subject: str, payload: bytes, **_: Any) -> Any:
        reply = await self._service.answer(subject.rpartition(".")[2], payload)
        return SimpleNamespace(data=msgspec.json.encode(reply))


def comparable(outcome: Outcome) -> Outcome:
    """Without words for people, and where it lies."""
    data = {name: value for name, value in outcome.data.items() if name != "source"}
    return msgspec.structs.replace(outcome, message="", data=data)


@settings(max_examples=150, deadline=None)
@given(st.lists(ASKED, max_size=14))
async def test_the_same_requests_have_the_same_outcomes_and_give_the_same_access(story: list[dict[str, Any]]) -> None:
    world = SimulatedProviders()
    simulated = world.add("p1")
    simulated.hold("data", **FILES)
    backend = Scripted()
    with TemporaryDirectory() as base:
        service = ProviderService("p1", backend, Path(base), now_us=lambda: NOW_US)
        client: Any = Straight(service)
        runners = (ProviderSteps(client), SimulatedProviderSteps(world, now_us=lambda: NOW_US))
        for asked in story:
            step = call(**{**asked, "timeout_ms": 5000})
            real, like = [comparable(each) for each in await asyncio.gather(*(runner.run(step) for runner in runners))]
            assert like == real, asked
            assert {**backend.table} == simulated.access
        await service.close()
