"""Statements and explanations as a person sees them."""

import json
from typing import Any

import pytest

from adapters.cli.money import amount
from tests.adapters.cli.conftest import Amends, FakeRuntime

T0 = 1_768_464_000_000_000  # 2026-01-15 08:00 UTC
HASH = "ab" * 32


def entry(number: int, kind: str, minor: int, key: str, **other: Any) -> dict[str, Any]:
    return {
        "entry_id": f"ent_{number}", "account_id": "acme", "entry_type": kind, "amount_minor": minor, "currency": "usd",
        "idempotency_key": key, "created_us": T0 + number * 1_000_000, "rule_id": None, "meter_id": "m",
    } | other  # fmt: skip


FIRST = [entry(1, "topup", 500, "topup:pi_1"), entry(2, "debit", 249, f"debit:m:{T0}")]
REST = [entry(3, "credit", 25, "credit:m:node_offline", rule_id="node_offline"), entry(4, "refund", 100, "refund:re_1")]
BESIDE = {"balance_minor": 1176, "currency": "usd", "opening_minor": 1000, "minor_unit_exponent": 2}


def paged(data: dict[str, Any]) -> dict[str, Any]:
    """The statement in two pages."""
    if data.get("cursor") == "c1":
        return {**BESIDE, "entries": REST, "opening_minor": 1251, "cursor": None}
    return {**BESIDE, "entries": FIRST, "cursor": "c1"}


async def test_a_statement_is_whole_and_says_the_balance_after_each_entry(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers["qry.account.statement"] = paged
    said = await amends("account", "statement", "acme", "--since", str(T0), "--until", "2026-01-16T08:00:00Z")
    asked = {"account_id": "acme", "since_us": T0, "until_us": T0 + 86_400_000_000}
    assert [data for _, data, _ in runtime.asked] == [asked, {**asked, "cursor": "c1"}]
    head, *lines, _, before, after, now = said.out.splitlines()
    assert head.split() == ["created", "entry_type", "amount", "balance", "rule_id", "idempotency_key"]
    assert [line.split()[2:] for line in lines] == [
        ["topup", "5.00", "15.00", "-", "topup:pi_1"], ["debit", "-2.49", "12.51", "-", f"debit:m:{T0}"],
        ["credit", "0.25", "12.76", "node_offline", "credit:m:node_offline"],
        ["refund", "-1.00", "11.76", "-", "refund:re_1"],
    ]  # fmt: skip
    assert [line.split("  ")[-1].strip() for line in (before, after, now)] == ["10.00 usd", "11.76 usd", "11.76 usd"]


async def test_a_statement_as_json_has_every_page(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers["qry.account.statement"] = paged
    found = json.loads((await amends("account", "statement", "acme", "--json")).out)
    assert [one["balance_after_minor"] for one in found["entries"]] == [1500, 1251, 1276, 1176]
    assert (found["opening_minor"], found["closing_minor"], found["balance_minor"]) == (1000, 1176, 1176)
    assert "cursor" not in found


async def test_a_currency_whose_minor_units_are_not_known_is_shown_in_them(
    runtime: FakeRuntime, amends: Amends
) -> None:
    beside = {"balance_minor": -249, "currency": "xyz", "opening_minor": 0, "minor_unit_exponent": None}
    runtime.answers["qry.account.statement"] = {**beside, "entries": FIRST[1:], "cursor": None}
    said = await amends("account", "statement", "acme")
    assert said.out.splitlines()[1].split()[3:5] == ["-249", "-249"]
    assert "-249 minor units of xyz" in said.out


async def test_a_statement_of_nothing_says_so(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers["qry.account.statement"] = {**BESIDE, "entries": [], "cursor": None}
    said = await amends("account", "statement", "acme")
    assert said.out.startswith("(none)\n")


@pytest.mark.parametrize(
    ("minor", "exponent", "text"),
    [(0, 2, "0.00"), (5, 2, "0.05"), (-5, 2, "-0.05"), (-12345, 2, "-123.45"), (7, 0, "7"), (1234, 3, "1.234"),
     (7, None, "7"), (2**63, 2, "92233720368547758.08")],
)  # fmt: skip
def test_amounts_are_exact(minor: int, exponent: int | None, text: str) -> None:
    assert amount(minor, exponent) == text


EXPLAINED: dict[str, Any] = {
    "entry": entry(3, "credit", 13, "credit:m:node_offline", rule_id="node_offline", payload_hash=HASH),
    "meter": {"meter_id": "m", "rate_uminor_per_hour": 249_000_000, "stop_cause": "node_offline"},
    "what": "what the rule gives back", "formula": ["base = C(5) − C(0) = 125", "ceil(125 · 1000 / 10000) = 13"],
    "reckoned_minor": 13, "agrees": True,
    "evaluation": {"cause": "node_offline", "reason": "", "stop_us": T0, "prior_credits": 0, "audit_id": "aud_1"},
    "rule": {"id": "node_offline", "bp": 1000}, "policy": {"version": "7", "sha256": HASH, "minor_unit_exponent": 2},
    "traces": {"allocation": "0" * 32, "recovery": "1" * 32}, "problem": "",
}  # fmt: skip


async def test_an_entry_is_explained_on_one_screen(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers["qry.ledger_entry.explain"] = EXPLAINED
    said = await amends("explain", "credit:m:node_offline")
    assert runtime.asked[0][1] == {"idempotency_key": "credit:m:node_offline"}
    assert said.status == 0
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    for line in (
        "amount 0.13 usd (credit)", "what what the rule gives back", "Meter", "stop_cause node_offline", "Evaluated",
        "stop_us 2026-01-15 08:00:00.000Z", "audit_id aud_1", "Rule", "bp 1000", "Formula", "base = C(5) − C(0) = 125",
        "13 minor units, as the entry has it", "Policy", f"sha256 {HASH}", "Traces", f"recovery {'1' * 32}",
    ):  # fmt: skip
        assert line in lines, line


async def test_an_entry_that_differs_or_cannot_be_explained_is_told(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers["qry.ledger_entry.explain"] = {**EXPLAINED, "agrees": False}
    assert "13 minor units: THE ENTRY DIFFERS" in (await amends("explain", "k")).out
    bare = dict.fromkeys(("meter", "evaluation", "rule", "policy", "reckoned_minor", "agrees"))
    payment = {**EXPLAINED, **bare, "formula": [], "traces": {}, "problem": "a payment\x1b[2J"}
    runtime.answers["qry.ledger_entry.explain"] = payment
    said = await amends("explain", "k")
    assert said.out.endswith("\nNot explained: a payment?[2J\n")
    assert json.loads((await amends("explain", "k", "--json")).out) == payment


async def test_the_policy_is_shown_with_its_rules_and_asked_with_the_contracts_names(
    runtime: FakeRuntime, amends: Amends
) -> None:
    rule = {"id": "release_default", "cause": "release", "reason": "*", "stop_at": "accepted_at", "bp": 0}
    shown = {"version": "7", "sha256": HASH, "in_force": True, "rules": [rule], "toml": 'currency = "usd"\nbp = 5\n'}
    runtime.answers |= {"ops.policy.show": shown, "ops.policy.evaluate": {"net": 163}}
    said = await amends("policy", "show", "--sha256", HASH)
    assert runtime.asked[0][1] == {"sha256": HASH}
    assert "release_default  release" in said.out
    assert said.out.endswith('currency = "usd"\nbp = 5\n')
    said = await amends(
        "policy", "evaluate", "--rate", "249000000", "--started", str(T0), "--cause", "force_release", "--reason", "r",
        "--stop", "2026-01-15T08:40:00Z", "--posted-through", str(T0), "--prior-credits", "1",
        "--later-cause", "node_offline", "--later-stop", str(T0 + 5),
    )  # fmt: skip
    assert runtime.asked[1][1] == {
        "rate_uminor_per_hour": 249_000_000, "started_us": T0, "cause": "force_release", "reason": "r",
        "stop_us": T0 + 2_400_000_000, "posted_through_us": T0, "prior_credits": 1, "later_cause": "node_offline",
        "later_stop_us": T0 + 5,
    }  # fmt: skip
    assert said.out.split() == ["net", "163"]
