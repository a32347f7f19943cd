"""The simulated provider and the service hear the same story, and say the same in every step of it."""

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from adapters.nats.provider_service import ProviderService
from adapters.nats.providers import ProviderSteps
from adapters.simulated.providers import SimulatedProviders, SimulatedProviderSteps
from amends.ports.steps import Outcome
from tests.adapters.providers.benches import FILES, Scripted, call

NOW_US = 1_700_000_000_000_000

STEPS = 80
CHOICES: dict[str, list[Any]] = {
    "op": ["grant"] * 4 + ["revoke"] * 2 + ["verify"] * 2 + ["usage", "capabilities"] + ["grants"] * 2,
    "grant": [f"grant_{number}" for number in range(12)],
    "namespace_id": ["data"] * 19 + ["missing"],
    "node_id": ["n1"] * 19 + ["n2"],
    "node_address": ["10.0.0.5"] * 9 + ["10.0.0.6"],
    "mode": ["rw", "ro"],
    "epoch": [5] * 19 + [4],
}


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


@pytest.mark.parametrize("seed", range(25))
async def test_the_same_requests_have_the_same_outcomes_and_give_the_same_access(seed: int, tmp_path: Path) -> None:
    world = SimulatedProviders()
    simulated = world.add("p1")
    simulated.hold("data", **FILES)
    backend, chance = Scripted(), random.Random(seed)
    service = ProviderService("p1", backend, tmp_path, now_us=lambda: NOW_US)
    client: Any = Straight(service)
    runners = (ProviderSteps(client), SimulatedProviderSteps(world, now_us=lambda: NOW_US))
    for _ in range(STEPS):
        asked = {name: chance.choice(values) for name, values in CHOICES.items()}
        step = call(**asked, timeout_ms=5000)
        real, like = [comparable(each) for each in await asyncio.gather(*(runner.run(step) for runner in runners))]
        assert like == real, asked
        assert {**backend.table} == simulated.access
    await service.close()
