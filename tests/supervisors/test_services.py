"""The wiring's own parts: services that are known before they run, and whom a returning node wakes."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors.node.state import Node
from amends.runtime.trunk import ChildSpec, TrunkFailed
from amends.values.limits import Limits
from supervisors.boot.services import Services
from supervisors.core import Core
from supervisors.timing import timing
from tests.policies import POLICY


async def forever() -> None:
    await asyncio.Event().wait()


async def test_services_can_be_looked_at_and_ended_before_they_are_started() -> None:
    services = Services()
    assert (services.tree(), services.restarts, services.ended) == ({}, {}, False)
    await services.end()
    await services.start([ChildSpec(name="one", run=forever)])
    assert [child["name"] for child in services.tree()["children"]] == ["one"]
    assert not services.ended
    await services.end()
    assert services.ended


async def test_a_start_that_fails_says_why() -> None:
    async def broken() -> None:
        raise RuntimeError("no")

    services = Services()
    with pytest.raises(TrunkFailed, match="one"):
        await services.start([ChildSpec(name="one", run=broken, ready=forever, fatal=True)])
    assert services.ended


@pytest.mark.parametrize(
    ("before", "state", "wakes"),
    [
        ("suspect", "ready", True), ("quarantined", "ready", True), ("suspect", "quarantined", True),
        ("quarantined", "quarantined", False), ("ready", "draining", False), ("ready", "suspect", False),
        (None, "registered", False),
    ],
)  # fmt: skip
def test_what_waits_for_a_node_goes_on_when_it_is_back(before: str | None, state: str, wakes: bool) -> None:
    core = Core(POLICY, Limits(timing("acceptance", {})), policy_text="")
    woken: list[str] = []
    core.kernel.dispatcher = cast(Any, SimpleNamespace(wake=woken.append))
    node = Node(state=state, ssh_host="h", ssh_port=22, ssh_host_key="k", registered_us=1)
    was = SimpleNamespace(state=before) if before is not None else None
    core._wake_held(cast(Any, SimpleNamespace(id="n1", state=node, before=was)))
    assert woken == (["node:n1"] if wakes else [])
