"""Money from outside: each entry explained, the statement's balance, and the policy asked what it would say."""

import asyncio

import pytest

from supervisors.policy_file import BUILT_IN, built_in
from tests.acceptance.machine import Machine
from tests.acceptance.money import entries
from tests.acceptance.records import meters
from tests.acceptance.world import RATE, World

pytestmark = pytest.mark.asyncio(loop_scope="module")
WINDOW_US = 1_000_000
DEAR = RATE * 20_000
EXPLAIN = "qry.ledger_entry.explain"
POLICY = built_in()


async def ended(world: World, machine: Machine, reason_code: str) -> str:
    """A rental that an operator has ended; its meter."""
    allocation_id = await world.rent(node_id=machine.node_id, rate_uminor_per_hour=DEAR)
    await asyncio.sleep(1.5)
    about = {"allocation_id": allocation_id, "reason_code": reason_code, "reason": "the rack is needed"}
    await world.ok("ops.allocation.force_release", about)
    await world.cleaned(allocation_id)
    (meter,) = await meters(world, allocation_id)
    return str(meter["meter_id"])


async def test_every_entry_of_a_meter_is_explained_and_comes_to_the_same_again(world: World, machine: Machine) -> None:
    meter_id = await ended(world, machine, "platform_fault")
    found = await entries(world, meter_id)
    kinds = {entry["entry_type"] for entry in found}
    assert kinds == {"debit", "credit"}
    assert len(found) > 2, "windows of a second: more than one was posted"
    for entry in found:
        told = await world.ok(EXPLAIN, {"idempotency_key": entry["idempotency_key"]})
        assert (told["agrees"], told["problem"], told["reckoned_minor"]) == (True, "", entry["amount_minor"]), told
        assert told["policy"]["sha256"] == told["meter"]["policy_sha256"]
        assert told["formula"]
        if entry["entry_type"] == "credit":
            assert told["rule"]["id"] == "force_platform_fault"
            assert set(told["traces"]) == {"allocation", "evaluation", "recovery"}


async def test_a_statement_adds_up(world: World, machine: Machine) -> None:
    await ended(world, machine, "operator_request")
    told = await world.ok("qry.account.statement", {"account_id": "acme"})
    signed = [e["amount_minor"] * (1 if e["entry_type"] in ("credit", "topup") else -1) for e in told["entries"]]
    assert (told["opening_minor"], told["cursor"], told["currency"]) == (0, None, "usd")
    assert sum(signed) == told["balance_minor"] < 0
    middle = told["entries"][len(signed) // 2]["created_us"]
    later = await world.ok("qry.account.statement", {"account_id": "acme", "since_us": middle})
    assert later["opening_minor"] + sum(signed[-len(later["entries"]) :]) == told["balance_minor"]


async def test_the_policy_says_of_the_recorded_inputs_what_was_booked(world: World, machine: Machine) -> None:
    meter_id = await ended(world, machine, "platform_fault")
    query = "SELECT details FROM public_v1.audit_log WHERE target_ref = $1 AND action = 'billing.credit.evaluated'"
    (row,) = await world.rows(query, f"meter:{meter_id}")
    asked = ("rate_uminor_per_hour", "started_us", "cause", "reason", "stop_us", "posted_through_us", "prior_credits")
    told = await world.ok("ops.policy.evaluate", {name: row["details"][name] for name in asked})
    for name in ("posted", "final", "minimum", "overrun", "policy_credit", "rule_id", "policy_sha256"):
        assert told[name] == row["details"][name], name
    shown = await world.ok("ops.policy.show", {"sha256": told["policy_sha256"]})
    assert (shown["in_force"], shown["version"], len(shown["rules"])) == (True, POLICY.version, len(POLICY.rules))
    differs = [line for line in BUILT_IN.read_text().splitlines() if line not in shown["toml"]]
    assert differs == ["window_us = 3_600_000_000"], "the world's own is in force"
