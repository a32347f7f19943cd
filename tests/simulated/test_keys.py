"""One key is one command: a repeat is answered with the first reply, one that comes at once waits for it (B7)."""

import asyncio

import pytest

from supervisors.simulation.world import CUSTOMER_KEY, Refused, Running, World

STEPS = 50_000  # callbacks: a command that is done again and again has no end
RENT = {"account_id": "acme", "ssh_public_key": CUSTOMER_KEY, "rate_uminor_per_hour": 249_000_000}


async def _rent(running: Running, key: str, **more: object) -> str:
    reply = await running.ask("cmd.allocation.request", key, **{**RENT, **more})
    return str(reply["allocation"]["allocation_id"])


def _allocations(running: Running) -> list[str]:
    return [name for (kind, name), _ in running.world.database.tables.states.items() if kind == "allocation"]


def test_a_repeat_gets_the_first_reply_and_another_body_under_its_key_is_refused() -> None:
    async def story(running: Running) -> None:
        await running.account("acme")
        first = await _rent(running, "rent")
        assert await _rent(running, "rent") == first
        with pytest.raises(Refused, match="idempotency_mismatch"):
            await _rent(running, "rent", rate_uminor_per_hour=1)
        assert _allocations(running) == [first]
        await running.release(first, "release")
        await running.quiet()

    assert World().run(story, steps=STEPS)


def test_a_request_that_no_node_takes_fails_at_its_deadline() -> None:
    async def story(running: Running) -> None:
        await running.account("acme")
        rented = await _rent(running, "rent")
        await running.until(lambda: running.state("allocation", rented) == "failed")
        assert running.body("allocation", rented)["failure_code"] == "no_capacity"
        await running.quiet()

    assert World().run(story, steps=STEPS)


def test_of_repeats_that_come_at_once_one_is_done() -> None:
    async def story(running: Running) -> None:
        await running.account("acme")
        rented = await asyncio.gather(*(_rent(running, "rent") for _ in range(5)))
        assert _allocations(running) == [rented[0]]
        assert set(rented) == {rented[0]}
        await running.release(rented[0], "release")
        await running.quiet()

    assert World().run(story, steps=STEPS)
