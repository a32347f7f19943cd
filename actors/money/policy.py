"""The credit policy as data: how meters count, and which rule applies to which end. Read by `supervisors.policy_file`.

Times in microseconds, money in minor units, shares in basis points (`bp`, of 10 000).
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Cause = Literal["release", "force_release", "node_offline", "node_rebooted"]
StopAt = Literal["last_good_heartbeat", "accepted_at"]
Span = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
ANY = "*"


class Rule(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an end for that cause (and reason) gives back.

    `bp` of what the last `lookback_us` cost; all of it when the rental ran for less than `early_full_refund_us`.
    `minimum` false: the minimum charge is not asked for.
    """

    id: Annotated[str, Meta(pattern=r"^[a-z0-9_.-]{1,63}$(?!\n)")]
    cause: Cause
    reason: Annotated[str, Meta(min_length=1, max_length=255)] = ANY
    stop_at: StopAt
    bp: Annotated[int, Meta(ge=0, le=10_000)]
    lookback_us: Span = 0
    early_full_refund_us: Span = 0
    minimum: bool = True


class Time(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`unit_us`: what is counted in whole; `window_us`: how often it is posted, on the grid of the epoch."""

    unit_us: Positive
    window_us: Positive


class Rounding(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Debits down and credits up: both in the customer's favour. There is no other choice."""

    debit: Literal["floor_cumulative"]
    credit: Literal["ceil"]


class Minimum(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ends for these causes cost at least so much time."""

    billable_us: Span
    applies_to: tuple[Cause, ...] = ()


class Caps(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A meter gives back no more than it took, and nothing below `min_credit_minor`."""

    per_meter: Literal["net_debits"]
    min_credit_minor: Span


class Policy(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"rules": "rule"}):
    """One policy file. `sha256` is over its bytes, and is set by who reads it."""

    policy_version: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[!-~]+$(?!\n)")]
    currency: Annotated[str, Meta(pattern=r"^[a-z]{3}$(?!\n)")]
    minor_unit_exponent: Annotated[int, Meta(ge=0, le=4)]
    on_over_quota: Literal["flag", "intervene"]
    time: Time
    rounding: Rounding
    minimum: Minimum
    caps: Caps
    rules: tuple[Rule, ...]
    sha256: str = ""

    @property
    def version(self) -> str:
        """Its name."""
        return self.policy_version

    def rule_for(self, cause: Cause, reason: str = "") -> Rule:
        """The first rule in file order that applies; KeyError where there is none, which a policy file cannot lack."""
        for rule in self.rules:
            if rule.cause == cause and rule.reason in (ANY, reason):
                return rule
        raise KeyError(cause)
