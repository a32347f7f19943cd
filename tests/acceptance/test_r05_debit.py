"""R05 from outside: a debit that is posted again, altered, too early or too late."""

import asyncio
from typing import Any

import pytest

from tests.acceptance.console import settle
from tests.acceptance.machine import Machine
from tests.acceptance.money import entries
from tests.acceptance.records import meters, runs
from tests.acceptance.world import RATE, World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
WINDOW_US = 1_000_000
DEAR = RATE * 20_000
POST = "ops.billing.post_window"


async def posted(world: World, machine: Machine, windows: int = 2) -> tuple[str, str, list[dict[str, Any]]]:
    """A running rental with some windows in the ledger: allocation, meter, entries."""
    allocation_id = await world.rent(node_id=machine.node_id, rate_uminor_per_hour=DEAR)
    (meter,) = await meters(world, allocation_id)
    meter_id = meter["meter_id"]

    async def enough() -> bool:
        return len(await entries(world, meter_id)) >= windows

    await until(enough, "windows are posted")
    return allocation_id, meter_id, await entries(world, meter_id)


def about(meter_id: str, window_us: int, amount: int, delivery: str = "d1") -> dict[str, Any]:
    return {"meter_id": meter_id, "window_start_us": window_us, "amount_minor": amount, "delivery_id": delivery,
            "reason": "the biller was replayed"}  # fmt: skip


async def test_a_posted_window_once_equal_and_once_altered(world: World, machine: Machine) -> None:
    allocation_id, meter_id, found = await posted(world, machine)
    window, amount = found[0]["window_start_us"], found[0]["amount_minor"]
    key = world.new_key()
    # when
    same = await world.ask(POST, about(meter_id, window, amount), key=key)
    error = await world.refused(POST, about(meter_id, window, amount + 1, "d2"), "idempotency_mismatch")
    replay = await world.ask(POST, about(meter_id, window, amount), key=key)
    # then
    assert (same["ok"], same["data"]["duplicate"], same["duplicate"]) == (True, True, False)
    assert (replay["data"]["duplicate"], replay["duplicate"]) == (True, True), "the same request, not another delivery"
    assert (error["http"], error["details"]["posted_minor"]) == (409, amount)
    assert [each for each in await entries(world, meter_id) if each["window_start_us"] == window] == [found[0]]
    told = await runs(world, f"meter:{meter_id}", "R05")
    assert [run.shape() for run in told] == [[f"cancel·state_change·meter:{meter_id}/window:{window}·success"]] * 2
    assert [(run.outcome, run.failures[0]["failure_type"]) for run in told] == [("recovered", "violation")] * 2
    (case,) = await world.rows("SELECT * FROM public_v1.ops_case WHERE kind = 'billing_conflict' AND target_ref = $1",
                               f"meter:{meter_id}")  # fmt: skip
    assert (case["state"], case["evidence"]["posted_minor"], case["evidence"]["amount_minor"]) == (
        "open",
        amount,
        amount + 1,
    )
    await settle(world, "billing_conflict", f"meter:{meter_id}", "ops.case.resolve")
    await world.release(allocation_id)


async def test_what_is_not_due_or_after_the_stop_is_refused(world: World, machine: Machine) -> None:
    allocation_id, meter_id, found = await posted(world, machine)
    last = found[-1]["window_start_us"]
    for window, amount in ((last + 3_600_000_000, 1), (last + 1, 1), (found[0]["window_start_us"] - WINDOW_US, 0)):
        error = await world.refused(POST, about(meter_id, window, amount), "window_not_due")
        assert error["http"] == 422
    await world.release(allocation_id)
    (meter,) = await meters(world, allocation_id)
    before = await entries(world, meter_id)
    after = meter["stopped_us"] - meter["stopped_us"] % WINDOW_US + WINDOW_US
    error = await world.refused(POST, about(meter_id, after, 1), "window_after_stop")
    assert (error["http"], error["details"]["stopped_us"]) == (422, meter["stopped_us"])
    assert await entries(world, meter_id) == before
    missing = "meter_" + "0" * 26
    await world.refused(POST, about(missing, after, 1), "not_found")


async def test_fifty_at_once_beside_the_poster_half_of_them_altered(world: World, machine: Machine) -> None:
    allocation_id, meter_id, found = await posted(world, machine, 3)
    first, rate = found[1], DEAR
    next_us = found[-1]["window_start_us"] + WINDOW_US
    whole = rate * (WINDOW_US // 1_000_000) * 1_000_000 // (3_600_000_000 * 1_000_000)
    asked = [
        about(meter_id, first["window_start_us"], first["amount_minor"] + each % 2, f"d{each}") for each in range(40)
    ]
    asked += [about(meter_id, next_us, whole, f"n{each}") for each in range(10)]
    replies = await asyncio.gather(*(world.ask(POST, each) for each in asked))
    codes = [reply["error"]["code"] if not reply["ok"] else reply["data"]["duplicate"] for reply in replies]
    assert codes[:40].count("idempotency_mismatch") == 20
    assert codes[:40].count(True) == 20
    assert codes[40:].count(False) <= 1, "one of them at most has posted it; else the poster was first"
    assert {code for code in codes[40:] if code is not False} <= {True, "window_not_due"}
    windows = [each["window_start_us"] for each in await entries(world, meter_id)]
    assert len(windows) == len(set(windows))
    cases = "SELECT count(*) FROM public_v1.ops_case WHERE kind = 'billing_conflict' AND target_ref = $1"
    assert await world.sql.fetchval(cases, f"meter:{meter_id}") == 1
    await world.release(allocation_id)
