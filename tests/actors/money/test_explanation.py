"""Every entry of a meter can be explained from what is recorded, and comes to the same amount again."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from actors.money.explanation import Explanation, Unexplained, explain
from actors.money.metering import Usage, grid_start, windows
from actors.money.settlement import Lowered, Meter, Settlement, lower, settle
from supervisors.policy_file import built_in

POLICY = built_in()
VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("credit-vectors.json").read_text())["vectors"]
T0 = 1_768_478_400_000_000
HOUR_US = POLICY.time.window_us
USAGE = Usage(249_000_000, T0 + 60_090_000, POLICY.time.unit_us)


def evaluated(end: Settlement, posted_us: int, cause: str, prior: int = 0) -> dict[str, Any]:
    """What is audited of a first end (`actors.allocation.billing`)."""
    return {
        "cause": cause, "rule_id": end.rule.id, "stop_us": end.stop_us, "posted_through_us": posted_us,
        "prior_credits": prior, "overrun": end.overrun, "debited": end.debited, "policy_credit": end.policy_credit,
    }  # fmt: skip


def lowered(found: Lowered, was_us: int, debited: int, credited: int) -> dict[str, Any]:
    """… and of a later cause that proves an earlier end."""
    return {
        "cause": "node_offline", "rule_id": "any", "stop_us": found.stop_us, "was_us": was_us,
        "posted_through_us": was_us, "prior_credits": credited, "overrun": found.overrun, "debited": debited,
        "policy_credit": 0,
    }  # fmt: skip


def of_key(key: str, *evaluations: dict[str, Any], usage: Usage = USAGE) -> Explanation:
    return explain(key, usage, POLICY, evaluations)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda one: one["id"])
def test_the_entries_of_the_contracts_cases_come_to_the_same_again(vector: dict[str, Any]) -> None:
    usage = Usage(vector["rate_uminor_per_hour"], vector["started_us"], POLICY.time.unit_us)
    posted_us, prior, stop_us = vector["posted_through_us"], vector.get("prior_credits", 0), vector["stop_us"]
    end = settle(POLICY, Meter(usage, posted_us, prior), vector["cause"], vector["reason"] or "", stop_us)
    records = [evaluated(end, posted_us, vector["cause"], prior)]
    entries = {"debit:m:minimum": end.minimum, f"credit:m:{end.rule.id}": end.policy_credit}
    if end.overrun:
        entries[f"credit:m:overrun:{end.stop_us}"] = end.overrun
    if "later_cause" in vector:
        credited = prior + end.credited
        later = lower(usage, end.stop_us, end.debited, credited, vector["later_stop_us"])
        assert later is not None
        records.append(lowered(later, end.stop_us, end.debited, credited))
        if later.overrun:
            entries[f"credit:m:overrun:{later.stop_us}"] = later.overrun
    for key, amount in entries.items():
        assert of_key(key, *records, usage=usage).amount_minor == amount, key


@pytest.mark.parametrize("past_us", [0, 1, 1_500_000, HOUR_US - 1])
def test_the_windows_of_a_meter_come_to_the_same_again_posted_or_cut_by_the_stop(past_us: int) -> None:
    posted_us = grid_start(T0, HOUR_US) + 3 * HOUR_US
    early = list(windows(USAGE, HOUR_US, USAGE.start_us, posted_us))
    end = settle(POLICY, Meter(USAGE, posted_us), "release", "", posted_us + past_us)
    record = evaluated(end, posted_us, "release")
    for window in early:  # while it runs, and when it has stopped
        for records in ((), (record,)):
            found = of_key(f"debit:m:{window.start_us}", *records)
            assert (found.amount_minor, found.evaluation) == (window.amount_minor, None)
    for window in end.windows:
        found = of_key(f"debit:m:{window.start_us}", record)
        assert (found.amount_minor, found.evaluation) == (window.amount_minor, record)


def test_windows_posted_past_the_stop_are_whole_and_the_overrun_gives_them_back() -> None:
    posted_us = grid_start(T0, HOUR_US) + 3 * HOUR_US
    early = list(windows(USAGE, HOUR_US, USAGE.start_us, posted_us))
    stop_us = posted_us - HOUR_US - 5_000_000
    end = settle(POLICY, Meter(USAGE, posted_us), "node_offline", "", stop_us)
    record = evaluated(end, posted_us, "node_offline")
    debits = [of_key(f"debit:m:{window.start_us}", record).amount_minor for window in early]
    overrun = of_key(f"credit:m:overrun:{stop_us}", record)
    assert sum(debits) - overrun.amount_minor == USAGE.at(stop_us)
    assert overrun.lines[2] == f"C({posted_us}) − C({stop_us}) = {end.overrun}"


def test_the_numbers_are_put_into_the_formula() -> None:
    start = T0 + 3_600_000_000
    found = of_key(f"debit:m:{T0}")
    counted, less, result = found.lines
    assert counted == (
        f"C({start}) = floor(249000000 · floor(({start} − {T0 + 60_090_000}) / 1000000) · 1000000 / "
        "(3600000000 · 1000000)) = 244"
    )
    assert less == f"C({T0 + 60_090_000}) = 0, the start"
    assert result == f"C({start}) − C({T0 + 60_090_000}) = 244"


def test_an_early_loss_is_given_back_whole_and_the_cap_is_told() -> None:
    stop_us = USAGE.start_us + 300_000_000
    end = settle(POLICY, Meter(USAGE, USAGE.start_us, 15), "node_offline", "", stop_us)
    found = of_key("credit:m:node_offline", evaluated(end, USAGE.start_us, "node_offline", 15))
    assert found.amount_minor == end.policy_credit == 20 - 15
    assert "less than early_full_refund_us 600000000" in found.lines[0]
    assert found.lines[-3:] == (
        "ceil(20 · 10000 / 10000) = 20", "at most debits less credits before and overrun: 20 − 15 − 0 = 5",
        "min(20, 5) = 5",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "why"),
    [("debit:m:minimum", "no evaluation"), ("credit:m:release_default", "no evaluation"),
     ("credit:m:overrun:5", "no evaluation that stops at 5"), ("topup:pi_1", "the key is none"),
     ("debit:m:soon", "the key is none"), ("credit:m:overrun:late", "the key is none"), ("", "the key is none")],
)  # fmt: skip
def test_what_is_not_recorded_cannot_be_explained(key: str, why: str) -> None:
    with pytest.raises(Unexplained, match=why):
        of_key(key)


def test_a_rule_that_was_not_chosen_explains_nothing() -> None:
    end = settle(POLICY, Meter(USAGE, USAGE.start_us), "release", "", T0 + HOUR_US)
    for rule in ("node_offline", "none_such"):
        with pytest.raises(Unexplained, match=rule):
            of_key(f"credit:m:{rule}", evaluated(end, USAGE.start_us, "release"))


def test_a_stop_on_the_edge_of_a_window_leaves_it_whole() -> None:
    edges = [grid_start(T0, HOUR_US) + number * HOUR_US for number in range(1, 4)]
    for from_us, to_us in pairwise(edges):
        end = settle(POLICY, Meter(USAGE, from_us), "release", "", to_us)
        (window,) = end.windows
        found = of_key(f"debit:m:{window.start_us}", evaluated(end, from_us, "release"))
        assert found.amount_minor == window.amount_minor
