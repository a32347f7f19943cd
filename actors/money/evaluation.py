"""What a policy makes of a rental's end, asked without a rental: inputs in, amounts out, nothing written.

The names are those of `ops.policy.evaluate` and of credit-vectors.json.
"""

import msgspec
from msgspec import Struct

from actors.money.metering import Usage
from actors.money.policy import Cause, Policy
from actors.money.settlement import Meter, lower, settle

ONE_WINDOW_US = 1 << 63  # what is still due does not hang on how it is cut, and cut finely it could be without end


class Inputs(Struct, frozen=True, kw_only=True):
    """One meter, its first end, and perhaps a later cause that proves an earlier one."""

    rate_uminor_per_hour: int
    started_us: int
    cause: Cause
    stop_us: int
    posted_through_us: int
    reason: str = ""
    prior_credits: int = 0
    later_stop_us: int | None = None


class Amounts(Struct, frozen=True, kw_only=True):
    """Minor units. `net`: what the rental costs in the end, what was given back before included."""

    posted: int
    final: int
    minimum: int
    overrun: int
    policy_credit: int
    net: int
    rule_id: str


def evaluate(policy: Policy, given: Inputs) -> Amounts:
    """What the meter is charged and given back. A later cause may only lower the stop, whichever it is."""
    usage = Usage(given.rate_uminor_per_hour, given.started_us, policy.time.unit_us)
    whole = msgspec.structs.replace(policy, time=msgspec.structs.replace(policy.time, window_us=ONE_WINDOW_US))
    meter = Meter(usage, given.posted_through_us, given.prior_credits)
    end = settle(whole, meter, given.cause, given.reason, given.stop_us)
    overrun, credited = end.overrun, given.prior_credits + end.credited
    if given.later_stop_us is not None:
        lowered = lower(usage, end.stop_us, end.debited, credited, given.later_stop_us)
        overrun += lowered.overrun if lowered is not None else 0
    return Amounts(
        posted=end.posted, final=end.final, minimum=end.minimum, overrun=overrun, policy_credit=end.policy_credit,
        net=end.debited - given.prior_credits - overrun - end.policy_credit, rule_id=end.rule.id,
    )  # fmt: skip
