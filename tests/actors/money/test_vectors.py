"""The contract's exact cases come out to the unit, by the policy that it calls the default (credit-policy.md)."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.money.evaluation import Inputs, evaluate
from actors.money.metering import Usage, windows
from actors.money.settlement import Meter, lower, settle
from supervisors.policy_file import built_in

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("credit-vectors.json").read_text())["vectors"]
NAMES = ("posted", "final", "minimum", "overrun", "policy_credit", "net")
INPUTS = (
    "rate_uminor_per_hour", "started_us", "cause", "reason", "stop_us", "posted_through_us", "prior_credits",
    "later_stop_us",
)  # fmt: skip
POLICY = built_in()
each = pytest.mark.parametrize("vector", [pytest.param(one, id=f"{one['id']}: {one['why']}") for one in VECTORS])


@each
def test_an_evaluation_gives_the_contracts_integers(vector: dict[str, Any]) -> None:
    given = {name: vector[name] for name in INPUTS if vector.get(name) is not None}
    found = evaluate(POLICY, Inputs(**given))
    assert {name: getattr(found, name) for name in NAMES} == vector["expect"]


@each
def test_a_settlement_in_the_vectors_windows_gives_the_same(vector: dict[str, Any]) -> None:
    time = msgspec.structs.replace(POLICY.time, window_us=vector["window_us"])
    policy = msgspec.structs.replace(POLICY, time=time)
    usage = Usage(vector["rate_uminor_per_hour"], vector["started_us"], time.unit_us)
    prior, expect = vector.get("prior_credits", 0), vector["expect"]
    meter = Meter(usage, vector["posted_through_us"], prior)
    end = settle(policy, meter, vector["cause"], vector["reason"] or "", vector["stop_us"])
    overrun = end.overrun
    if "later_cause" in vector:
        lowered = lower(usage, end.stop_us, end.debited, prior + end.credited, vector["later_stop_us"])
        assert lowered is not None
        overrun += lowered.overrun
    found = (end.posted, end.final, end.minimum, overrun, end.policy_credit)
    assert found == tuple(expect[name] for name in NAMES[:-1])
    assert end.debited - prior - overrun - end.policy_credit == expect["net"]


@pytest.mark.parametrize("vector", [one for one in VECTORS if "other_windows" in one], ids=lambda one: one["id"])
def test_windows_come_out_one_by_one(vector: dict[str, Any]) -> None:
    usage = Usage(vector["rate_uminor_per_hour"], vector["started_us"], POLICY.time.unit_us)
    found = list(windows(usage, vector["window_us"], vector["started_us"], vector["stop_us"]))
    assert len(found) == 60
    more = next(int(name.rpartition("_")[2]) for name in vector if name.startswith("windows_of_"))
    places = [number for number, window in enumerate(found) if window.amount_minor == more]
    assert places == vector[f"windows_of_{more}"]
    assert {window.amount_minor for window in found} == {more, vector["other_windows"]}
