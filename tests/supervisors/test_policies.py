"""The questions about the policy: what is shown of it, and the contract's cases asked as a request."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from amends.ports.reading import ANYBODY, Asker
from amends.runtime.identity import Identity
from amends.runtime.requests import decode
from amends.values.errors import Rejected
from supervisors.api.policies import PolicyQuestions
from supervisors.api.sides import Sides
from supervisors.policy_file import BUILT_IN, built_in

VIEWER = Identity("vera", role="viewer")
POLICY = built_in()
VECTORS_FILE = Path(__file__).parents[1] / "actors" / "money" / "credit-vectors.json"
VECTORS: list[dict[str, Any]] = json.loads(VECTORS_FILE.read_text())["vectors"]
ASKED = (
    "rate_uminor_per_hour", "started_us", "cause", "reason", "stop_us", "posted_through_us", "prior_credits",
    "later_cause", "later_stop_us",
)  # fmt: skip
LONG_US = 1 << 62


class Documents:
    """A read side that has some stored policies, by hash."""

    def __init__(self, bodies: dict[str, dict[str, Any]]) -> None:
        self.bodies = bodies

    async def rows(self, name: str, *args: Any, asker: Asker = ANYBODY) -> list[dict[str, Any]]:
        assert name == "policy_document"
        return [{"body": self.bodies[args[0]]}] if args[0] in self.bodies else []

    async def get(self, *args: Any, **more: Any) -> dict[str, Any]:
        raise AssertionError("no row is asked for")

    async def page(self, *args: Any, **more: Any) -> dict[str, Any]:
        raise AssertionError("no list is asked for")

    async def columns(self, entity: str) -> dict[str, str]:
        raise AssertionError("no column is asked for")


async def ask(subject: str, data: dict[str, Any], bodies: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    side = Documents(bodies or {})
    questions = PolicyQuestions(Sides(side, side), POLICY)
    (endpoint,) = [one for one in questions.endpoints() if one.subject == subject]
    assert endpoint.role == "viewer"
    assert endpoint.answer is not None
    return await endpoint.answer(decode(endpoint, msgspec.json.encode(data)), VIEWER)


def asked(vector: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {name: vector[name] for name in ASKED if name in vector} | other


async def refused(data: dict[str, Any]) -> Rejected:
    with pytest.raises(Rejected) as found:
        await ask("ops.policy.evaluate", data)
    return found.value


@pytest.mark.parametrize("vector", VECTORS, ids=lambda one: f"{one['id']}: {one['why']}")
async def test_a_case_of_the_contract_is_answered_to_the_unit(vector: dict[str, Any]) -> None:
    found = await ask("ops.policy.evaluate", asked(vector))
    assert {name: found[name] for name in vector["expect"]} == vector["expect"]
    rule = POLICY.rule_for(vector["cause"], vector["reason"] or "")
    identity = (rule.id, POLICY.version, POLICY.sha256)
    assert (found["rule_id"], found["policy_version"], found["policy_sha256"]) == identity
    assert set(found) == {*vector["expect"], "rule_id", "policy_version", "policy_sha256"}


async def test_a_rental_of_all_time_is_answered_at_once() -> None:
    data = asked(VECTORS[0], started_us=0, stop_us=LONG_US, posted_through_us=0, rate_uminor_per_hour=10**15)
    found = await ask("ops.policy.evaluate", data)
    assert found["net"] == 10**15 * (LONG_US // 1_000_000 * 1_000_000) // (3_600_000_000 * 1_000_000)
    assert json.loads(msgspec.json.encode(found)) == found, "it is a number that a reply can carry"


@pytest.mark.parametrize("missing", ["later_cause", "later_stop_us"])
async def test_a_later_cause_goes_with_its_stop(missing: str) -> None:
    later = {"later_cause": "node_offline", "later_stop_us": 5}
    error = await refused(asked(VECTORS[0]) | {name: value for name, value in later.items() if name != missing})
    assert (error.code, error.details["field"]) == ("invalid_request", missing)


@pytest.mark.parametrize(
    ("field", "value"),
    [("cause", "flood"), ("cause", None), ("rate_uminor_per_hour", -1), ("rate_uminor_per_hour", 1.5), ("stop_us", -1),
     ("prior_credits", -1), ("reason", ""), ("window_us", 5), ("later_stop_us", LONG_US + 1)],
)  # fmt: skip
async def test_what_cannot_be_evaluated_is_refused(field: str, value: Any) -> None:
    assert (await refused(asked(VECTORS[0], **{field: value}))).code == "invalid_request"


async def test_the_policy_in_force_is_shown_with_its_text_and_its_rules() -> None:
    body = {"toml": BUILT_IN.read_text()}
    found = await ask("ops.policy.show", {}, {POLICY.sha256: body})
    assert (found["version"], found["sha256"], found["currency"]) == (POLICY.version, POLICY.sha256, "usd")
    assert (found["in_force"], found["problem"], found["toml"]) == (True, "", body["toml"])
    assert [rule["id"] for rule in found["rules"]] == [rule.id for rule in POLICY.rules]
    assert found["rules"][4] == {
        "id": "release_default", "cause": "release", "reason": "*", "stop_at": "accepted_at", "bp": 0,
        "lookback_us": 0, "early_full_refund_us": 0, "minimum": True,
    }  # fmt: skip


async def test_an_earlier_policy_is_shown_by_its_hash_also_where_it_is_refused_now() -> None:
    bodies = {"ab" * 32: {"toml": BUILT_IN.read_text()}, "cd" * 32: {"toml": 'currency = "usd"\n'}}
    readable = await ask("ops.policy.show", {"sha256": "ab" * 32}, bodies)
    assert (readable["in_force"], len(readable["rules"])) == (False, 5)
    other = await ask("ops.policy.show", {"sha256": "cd" * 32}, bodies)
    assert (other["rules"], other["toml"], other["version"]) == ([], 'currency = "usd"\n', None)
    assert "`policy_version` is missing" in other["problem"]
    with pytest.raises(Rejected, match="was ever in force") as unknown:
        await ask("ops.policy.show", {"sha256": "ef" * 32}, bodies)
    assert unknown.value.code == "not_found"
