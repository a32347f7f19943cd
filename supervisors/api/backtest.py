"""`ops.policy.backtest`: what another policy would have made of rentals that have ended. A page a request."""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from actors.money.backtest import NotComparable, Outcome, replay
from actors.money.policy import Policy
from amends.domain.api import Instant, Request
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from amends.values.errors import BadConfiguration, Rejected
from supervisors.api.ledger_proof import METERS, MOST_WRONG, Page, PolicyOf, evaluations_by_meter
from supervisors.api.sides import Sides
from supervisors.policy_file import read

TOTALS = (
    "meters", "charged_minor", "credited_minor", "would_charge_minor", "would_credit_minor", "not_comparable",
)  # fmt: skip
Row = dict[str, Any]


class PolicyBacktest(Request, frozen=True):
    """ops.policy.backtest; `toml` is a whole policy file."""

    toml: Annotated[str, Meta(min_length=1, max_length=32_768)]
    since_us: Instant
    cursor: Annotated[str, Meta(pattern=r"^meter_[0-9a-z]{26}$(?!\n)")] | None = None


class Backtest:
    """Answers it."""

    def __init__(self, sides: Sides, policy_of: PolicyOf) -> None:
        self._sides, self._policy_of = sides, policy_of

    def endpoints(self) -> list[Endpoint]:
        """Its subject."""
        return [Endpoint(subject="ops.policy.backtest", request=PolicyBacktest, role="viewer", answer=self._backtest)]

    async def _backtest(self, request: PolicyBacktest, identity: Identity) -> Row:
        try:
            policy = read(request.toml.encode(), "toml")
        except BadConfiguration as error:
            raise Rejected("invalid_request", str(error), field="toml") from None
        side, asker = self._sides.of(identity)
        page = Page(side, asker, request.cursor or "", "")
        meters = await page.rows("ended_meters", request.since_us, page.after, METERS)
        names = [meter["meter_id"] for meter in meters]
        sums = {row["meter_id"]: row for row in await page.rows("sums_of_meters", names)}
        evaluations = await evaluations_by_meter(page, names)
        total: Row = dict.fromkeys(TOTALS, 0)
        rules: dict[str, Row] = {}
        changes: list[Row] = []
        for meter in meters:
            name = meter["meter_id"]
            total["meters"] += 1
            would = self._would(policy, meter, evaluations.get(name, []))
            if would is None:
                total["not_comparable"] += 1
                continue
            was = sums.get(name, {"charged": 0, "credited": 0})
            _count(total, rules, was, would)
            change = would.net - (was["charged"] - was["credited"])
            if change:
                changes.append({
                    "meter_id": name, "account_id": meter["account_id"], "rule_id": would.rule_id,
                    "net_minor": was["charged"] - was["credited"], "would_be_minor": would.net,
                    "difference_minor": change,
                })  # fmt: skip
        changes.sort(key=lambda row: -abs(row["difference_minor"]))
        return {
            "policy_version": policy.version, "policy_sha256": policy.sha256, **total, "rules": rules,
            "changes": changes[:MOST_WRONG], "cursor": names[-1] if len(meters) == METERS else None,
        }  # fmt: skip

    def _would(self, policy: Policy, meter: Row, evaluations: Sequence[Row]) -> Outcome | None:
        """None where what is recorded does not say."""
        if not evaluations:
            return None
        first = evaluations[0]["details"]
        try:
            own = self._policy_of(meter["policy_sha256"])
            was = own.rule_for(first["cause"], first["reason"])
            if own.currency != policy.currency:
                return None
            by_beat = was.stop_at == "last_good_heartbeat"
            # Releases before 0.4 recorded when it was accepted only where the rule of the day went by that.
            accepted_us = first.get("accepted_us") or (evaluations[0]["at_us"] if by_beat else first["asked_us"])
            return replay(policy, meter, first, accepted_us=accepted_us, by_beat=by_beat)
        except (NotComparable, KeyError):
            return None


def _count(total: Row, rules: dict[str, Row], was: Row, would: Outcome) -> None:
    total["charged_minor"] += was["charged"]
    total["credited_minor"] += was["credited"]
    total["would_charge_minor"] += would.charged
    total["would_credit_minor"] += would.credited
    rule = rules.setdefault(would.rule_id, {"meters": 0, "credited_minor": 0})
    rule["meters"] += 1
    rule["credited_minor"] += would.credited
