"""The meter of an allocation: started with its activation, stopped with its release; what counts is its row."""

from actors.allocation.state import Allocation
from actors.facts import facts
from actors.tables import MeterRow
from amends.turn.decision import Decision


def start(d: Decision) -> None:
    """The meter runs from the activation on, by the policy in force."""
    policy = facts(d).policy
    d.part(
        "billing", state="accruing", meter_id=d.mint("meter"), policy_version=policy.version,
        policy_sha256=policy.sha256,
    )  # fmt: skip
    d.row(_meter(d.state, d.id))


def stop(d: Decision, at_us: int, cause: str) -> None:
    """It has run until then; `cause` is its stop cause."""
    d.part("billing", state="stopped", stopped_us=at_us)
    d.row(_meter(d.state, d.id, cause))


def _meter(s: Allocation, allocation_id: str, cause: str | None = None) -> MeterRow:
    own, start_us = s.billing, s.rental.activated_us or 0
    return MeterRow(
        own.meter_id or "", allocation_id, s.account_id, own.state, s.rate_uminor_per_hour, own.policy_version,
        own.policy_sha256, start_us, own.stopped_us, cause, start_us,
    )  # fmt: skip
