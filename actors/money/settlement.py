"""What the end of a rental comes to: the windows still due, the minimum, what was posted too far, the policy's credit.

The first committed cause chooses the rule; a later one may only prove an earlier end, and gives back what was posted
past it. A meter never gives back more than it took (B4). Debits round down and credits up.
"""

from msgspec import Struct

from actors.money.metering import HOUR_US, MILLIONTHS, Usage, Window, windows
from actors.money.policy import Cause, Policy, Rule

FULL_BP = 10_000


class Meter(Struct, frozen=True):
    """A meter before its end: what it counts by, what is posted, and what it has given back already."""

    usage: Usage
    posted_us: int
    prior_credits: int = 0


class Settlement(Struct, frozen=True, kw_only=True):
    """What one end comes to. Amounts in minor units; `stop_us` is never before the start.

    `posted` and `final`: debits before and by it; `base`, `bp`, `raw`, `capped` say how `policy_credit` came about.
    """

    rule: Rule
    stop_us: int
    windows: tuple[Window, ...]
    posted: int
    final: int
    minimum: int
    overrun: int
    base: int
    bp: int
    raw: int
    capped: bool
    policy_credit: int

    @property
    def debited(self) -> int:
        """All that the meter has taken."""
        return self.posted + self.final + self.minimum

    @property
    def credited(self) -> int:
        """What this end gives back."""
        return self.overrun + self.policy_credit


def settle(policy: Policy, meter: Meter, cause: Cause, reason: str, stop_us: int) -> Settlement:
    """The first end of a meter, by the policy that it was opened under."""
    usage, rule = meter.usage, policy.rule_for(cause, reason)
    end_us = max(stop_us, usage.start_us)
    due = tuple(windows(usage, policy.time.window_us, meter.posted_us, end_us))
    posted, final = usage.at(meter.posted_us), sum(window.amount_minor for window in due)
    minimum = _minimum(policy, usage, rule, end_us) if stop_us >= usage.start_us else 0
    left = posted + final + minimum - meter.prior_credits
    owed_back = max(0, usage.at(meter.posted_us) - usage.at(end_us))
    overrun = max(0, min(owed_back, left))
    base, bp = _base(rule, usage, end_us)
    raw = -(-base * bp // FULL_BP)
    credit = max(0, min(raw, left - overrun))
    return Settlement(
        rule=rule, stop_us=end_us, windows=due, posted=posted, final=final, minimum=minimum, overrun=overrun, base=base,
        bp=bp, raw=raw, capped=credit < raw or overrun < owed_back,
        policy_credit=credit if credit >= policy.caps.min_credit_minor else 0,
    )  # fmt: skip


class Lowered(Struct, frozen=True):
    """What a proof of an earlier end gives back; `owed` is that without the cap."""

    stop_us: int
    owed: int
    overrun: int

    @property
    def capped(self) -> bool:
        """Whether the meter had given back too much for all of it."""
        return self.overrun < self.owed


def lower(usage: Usage, stopped_us: int, debited: int, credited: int, stop_us: int) -> Lowered | None:
    """A later cause proves that it ended earlier; None where it proves nothing.

    `stopped_us`: its stop so far, up to which it is charged: what was posted past it was given back then.
    """
    end_us = max(stop_us, usage.start_us)
    if end_us >= stopped_us:
        return None
    owed = usage.between(end_us, stopped_us)
    return Lowered(end_us, owed, max(0, min(owed, debited - credited)))


def _minimum(policy: Policy, usage: Usage, rule: Rule, end_us: int) -> int:
    """What tops the debits, net of overrun, up to the minimum."""
    if rule.cause not in policy.minimum.applies_to or not rule.minimum:
        return 0
    least = usage.rate * policy.minimum.billable_us // (HOUR_US * MILLIONTHS)
    return max(0, least - usage.at(end_us))


def _base(rule: Rule, usage: Usage, end_us: int) -> tuple[int, int]:
    """What the credit is a share of, and which share."""
    if end_us - usage.start_us < rule.early_full_refund_us:
        return usage.at(end_us), FULL_BP
    return usage.between(max(usage.start_us, end_us - rule.lookback_us), end_us), rule.bp
