"""How a ledger entry came about: the formula of its amount with the numbers put in, and what it comes to again.

From what is recorded: the meter, the policy that it was opened under, and the evaluations of its end
(`billing.credit.evaluated`). Nothing is taken from the entry itself but its key, so that the two can be compared.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from actors.money.metering import HOUR_US, MILLIONTHS, Usage
from actors.money.policy import Policy, Rule
from actors.money.settlement import FULL_BP

Evaluation = Mapping[str, Any]  # the details of the audit entry
MINIMUM: Final = "minimum"


class Explanation(Struct, frozen=True):
    """`what` it is, the `lines` of its formula, the amount that they come to, the `evaluation` that it came from."""

    what: str
    lines: tuple[str, ...]
    amount_minor: int
    evaluation: Evaluation | None = None


class Unexplained(Exception):
    """What is recorded says nothing of that key; the message says what is missing."""


def explain(key: str, usage: Usage, policy: Policy, evaluations: Sequence[Evaluation]) -> Explanation:
    """The entry of that key of this meter; `evaluations` in the order in which they were made.

    Raises `Unexplained`.
    """
    match key.split(":"):
        case ["debit", _, "minimum"]:
            return _minimum(usage, policy, _first(evaluations))
        case ["debit", _, start] if start.isdecimal():
            return _window(int(start), usage, policy, evaluations)
        case ["credit", _, "overrun", stop] if stop.isdecimal():
            return _overrun(int(stop), usage, evaluations)
        case ["credit", _, rule_id]:
            return _credit(rule_id, usage, policy, _first(evaluations))
        case _:
            raise Unexplained("the key is none that a meter's entries have")


def rule_of(policy: Policy, rule_id: str) -> Rule | None:
    """The rule of that id."""
    return next((rule for rule in policy.rules if rule.id == rule_id), None)


def _first(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The evaluation of the first cause: it chose the rule, and no other asks for a minimum or gives a credit."""
    if not evaluations:
        raise Unexplained("no evaluation of the meter's end is recorded")
    return evaluations[0]


def _window(start_us: int, usage: Usage, policy: Policy, evaluations: Sequence[Evaluation]) -> Explanation:
    from_us, to_us = max(start_us, usage.start_us), start_us + policy.time.window_us
    first = evaluations[0] if evaluations else None
    cut = first is not None and first["posted_through_us"] < to_us  # it was posted by the stop, and up to it
    if first is not None and cut:
        to_us = min(to_us, first["stop_us"])
    amount = usage.between(from_us, to_us)
    lines = (*_counted(usage, to_us, from_us), f"C({to_us}) − C({from_us}) = {amount}")
    return Explanation("the usage of one window", lines, amount, first if cut else None)


def _minimum(usage: Usage, policy: Policy, first: Evaluation) -> Explanation:
    stop_us, billable_us = first["stop_us"], policy.minimum.billable_us
    least = usage.rate * billable_us // (HOUR_US * MILLIONTHS)
    amount = max(0, least - usage.at(stop_us))
    lines = (
        f"at least floor({usage.rate} · {billable_us} / ({HOUR_US} · {MILLIONTHS})) = {least}",
        *_counted(usage, stop_us),
        f"max(0, {least} − {usage.at(stop_us)}) = {amount}",
    )
    return Explanation("what tops the debits up to the minimum", lines, amount, first)


def _overrun(stop_us: int, usage: Usage, evaluations: Sequence[Evaluation]) -> Explanation:
    found = next((one for one in evaluations if one["stop_us"] == stop_us and one["overrun"]), None)
    if found is None:
        raise Unexplained(f"no evaluation that stops at {stop_us} is recorded")
    until_us = found["was_us"] if "was_us" in found else found["posted_through_us"]
    owed, left = usage.between(stop_us, until_us), found["debited"] - found["prior_credits"]
    amount = max(0, min(owed, left))
    lines = (
        *_counted(usage, until_us, stop_us),
        f"C({until_us}) − C({stop_us}) = {owed}",
        f"at most debits less credits before: {found['debited']} − {found['prior_credits']} = {left}",
        f"min({owed}, {left}) = {amount}",
    )
    return Explanation("what was charged past the end", lines, amount, found)


def _credit(rule_id: str, usage: Usage, policy: Policy, first: Evaluation) -> Explanation:
    rule, stop_us = rule_of(policy, rule_id), first["stop_us"]
    if rule is None or first["rule_id"] != rule_id:
        raise Unexplained(f"the evaluation of the meter's end did not choose the rule {rule_id}")
    ran_us = stop_us - usage.start_us
    if ran_us < rule.early_full_refund_us:
        base, bp, lines = usage.at(stop_us), FULL_BP, (
            f"it ran for {ran_us}, less than early_full_refund_us {rule.early_full_refund_us}: all of it",
            *_counted(usage, stop_us), f"base = C({stop_us}) = {usage.at(stop_us)}",
        )  # fmt: skip
    else:
        from_us = max(usage.start_us, stop_us - rule.lookback_us)
        base, bp = usage.between(from_us, stop_us), rule.bp
        lines = (*_counted(usage, stop_us, from_us), f"base = C({stop_us}) − C({from_us}) = {base}")
    parts = (first["debited"], first["prior_credits"], first["overrun"])
    raw, left = -(-base * bp // FULL_BP), parts[0] - parts[1] - parts[2]
    capped = max(0, min(raw, left))
    amount, least = capped if capped >= policy.caps.min_credit_minor else 0, policy.caps.min_credit_minor
    lines = (
        *lines,
        f"ceil({base} · {bp} / {FULL_BP}) = {raw}",
        f"at most debits less credits before and overrun: {' − '.join(map(str, parts))} = {left}",
        f"min({raw}, {left}) = {capped}" + (f", below min_credit_minor {least}: 0" if amount < capped else ""),
    )
    return Explanation("what the rule gives back", lines, amount, first)


def _counted(usage: Usage, *times_us: int) -> tuple[str, ...]:
    """What the meter had counted by these instants; those at its start or before are 0."""
    per = f"({HOUR_US} · {MILLIONTHS})"
    return tuple(
        f"C({t_us}) = floor({usage.rate} · floor(({t_us} − {usage.start_us}) / {usage.unit_us}) · {usage.unit_us} / "
        f"{per}) = {usage.at(t_us)}"
        if t_us > usage.start_us else f"C({t_us}) = 0, the start"
        for t_us in times_us
    )  # fmt: skip
