"""What another policy would have made of rentals that have ended, from what was recorded of them. Pure."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from actors.money.evaluation import Inputs, evaluate
from actors.money.policy import Policy

Row = Mapping[str, Any]


class Outcome(Struct, frozen=True, kw_only=True):
    """One rental under the other policy. Minor units; `charged` is before what is given back."""

    charged: int
    credited: int
    rule_id: str

    @property
    def net(self) -> int:
        """What it would have cost."""
        return self.charged - self.credited


class NotComparable(Exception):
    """What is recorded does not say when the rental would have ended under the other policy."""


def replay(policy: Policy, meter: Row, first: Row, *, accepted_us: int, by_beat: bool) -> Outcome:
    """The end that `first` (its evaluation) records, under that policy; what was posted by then does not matter.

    `accepted_us`: when the end was accepted; `by_beat`: whether the rule of the day stopped at the last heartbeat,
    whose time is recorded only then. A later proof of an earlier end is in the meter's stop. Raises `NotComparable`.
    """
    cause, reason = first["cause"], first["reason"]
    rule = policy.rule_for(cause, reason)
    if rule.stop_at == "accepted_at":
        stop_us = accepted_us
    elif by_beat or cause in ("release", "force_release"):
        stop_us = first["asked_us"]
    else:
        raise NotComparable("the last heartbeat was not recorded, since the policy of the day did not go by it")
    later_us = meter["stopped_us"] if meter["stopped_us"] < first["stop_us"] else None
    amounts = evaluate(policy, Inputs(
        rate_uminor_per_hour=meter["rate_uminor_per_hour"], started_us=meter["started_us"], cause=cause, reason=reason,
        stop_us=stop_us, posted_through_us=meter["started_us"], later_stop_us=later_us,
    ))  # fmt: skip
    charged = amounts.posted + amounts.final + amounts.minimum
    return Outcome(charged=charged, credited=amounts.overrun + amounts.policy_credit, rule_id=amounts.rule_id)
