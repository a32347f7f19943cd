"""What the entries of a meter must be, from first principles: its rate, its policy, and what was asked of its end.

Nothing is taken from the entries themselves, so that they can be held to it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from actors.money.metering import Usage, windows
from actors.money.policy import Policy
from actors.money.settlement import Meter, lower, settle

Row = Mapping[str, Any]


class Difference(Struct, frozen=True):
    """One entry that is not as it must be; None where there is none, or where none may be."""

    key: str
    wanted_minor: int | None
    found_minor: int | None


def entries_of(meter: Row, policy: Policy, evaluations: Sequence[Row]) -> dict[str, int]:
    """Key → minor units of all entries that the meter must have.

    `meter` is its row; `evaluations` what is recorded of its ends, the first first.
    """
    usage = Usage(meter["rate_uminor_per_hour"], meter["started_us"], policy.time.unit_us)
    name, window_us = meter["meter_id"], policy.time.window_us
    if not evaluations:
        until_us = meter["posted_through_us"]
        return _debits(name, usage, window_us, usage.start_us, until_us)
    first, *later = evaluations
    posted_us = max(usage.start_us, first["posted_through_us"])
    end = settle(policy, Meter(usage, posted_us), first["cause"], first["reason"], first["asked_us"])
    found = _debits(name, usage, window_us, usage.start_us, posted_us)
    found |= {f"debit:{name}:{window.start_us}": window.amount_minor for window in end.windows}
    found |= {f"debit:{name}:minimum": end.minimum} if end.minimum else {}
    found |= {f"credit:{name}:overrun:{end.stop_us}": end.overrun} if end.overrun else {}
    found |= {f"credit:{name}:{end.rule.id}": end.policy_credit} if end.policy_credit else {}
    stop_us, credited = end.stop_us, end.credited
    for one in later:
        lowered = lower(usage, stop_us, end.debited, credited, one["asked_us"])
        if lowered is not None:
            stop_us, credited = lowered.stop_us, credited + lowered.overrun
            found |= {f"credit:{name}:overrun:{stop_us}": lowered.overrun} if lowered.overrun else {}
    return found


def differences(wanted: Mapping[str, int], found: Mapping[str, int]) -> Iterator[Difference]:
    """What is missing, too much, or of another amount."""
    for key in sorted({*wanted, *found}):
        if wanted.get(key) != found.get(key):
            yield Difference(key, wanted.get(key), found.get(key))


def _debits(name: str, usage: Usage, window_us: int, from_us: int, until_us: int) -> dict[str, int]:
    return {
        f"debit:{name}:{window.start_us}": window.amount_minor
        for window in windows(usage, window_us, from_us, until_us)
    }
