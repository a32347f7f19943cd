"""The meter of an allocation: opened by its activation, posted a window at a time, stopped once, perhaps lowered later.

What counts are its row and the ledger's entries, written in the turn that decides them. Amounts in minor units.
"""

from itertools import islice
from typing import Any

from msgspec.structs import asdict

from actors.allocation.messages import PostWindows
from actors.allocation.state import Allocation
from actors.between import LedgerPosted
from actors.facts import facts
from actors.money.metering import Usage, Window, grid_start, windows
from actors.money.policy import Cause, Policy
from actors.money.settlement import Lowered, Meter, Settlement, lower, settle
from actors.tables import LedgerRow, MeterRow
from amends.turn.decision import Decision
from amends.turn.recovery import Run
from amends.values.canonical import canonical, sha256

AT_ONCE = 200  # windows that one turn posts; the rest in the next


def start(d: Decision) -> None:
    """The meter runs from the activation on, by the policy in force."""
    policy = facts(d).policy
    d.part(
        "billing", state="accruing", meter_id=d.mint("meter"), policy_version=policy.version,
        policy_sha256=policy.sha256, posted_us=d.state.rental.activated_us,
    )  # fmt: skip
    d.row(_meter(d))


def post(s: Allocation, m: PostWindows, d: Decision) -> None:
    """Post the windows that have ended: no event, no audit entry, no change of the state (credit-policy.md)."""
    if s.billing.meter_id is None:
        return
    policy, usage, posted_us = _policy(d), _usage(d), _posted_us(d)
    window_us = policy.time.window_us
    due = list(islice(windows(usage, window_us, posted_us, grid_start(d.now_us, window_us)), AT_ONCE))
    for window in due:
        _debit(d, window, policy.currency)
    if due:
        d.row(_meter(d, posted_us=due[-1].to_us))


def next_window(d: Decision) -> Window | None:
    """The next window of a running meter that has ended and is not posted; a meter that has stopped has none."""
    if d.state.billing.state != "accruing":
        return None
    policy, usage = _policy(d), _usage(d)
    window_us = policy.time.window_us
    return next(windows(usage, window_us, _posted_us(d), grid_start(d.now_us, window_us)), None)


def posted_window(d: Decision, start_us: int) -> Window | None:
    """The window of that grid start as it was posted, of which nothing is read: entries are the formula's (B1)."""
    usage, window_us, posted_us = _usage(d), _policy(d).time.window_us, _posted_us(d)
    from_us, to_us = max(start_us, usage.start_us), min(start_us + window_us, posted_us)
    if start_us % window_us or from_us >= to_us or start_us < grid_start(usage.start_us, window_us):
        return None
    return Window(start_us, from_us, to_us, usage.between(from_us, to_us))


def ends_past_stop(d: Decision, start_us: int) -> bool:
    """Whether the meter has stopped before the end of that window."""
    stopped_us = d.state.billing.stopped_us
    return stopped_us is not None and start_us + _policy(d).time.window_us > stopped_us


def post_one(d: Decision, window: Window) -> None:
    """Post the next window."""
    _debit(d, window, _policy(d).currency)
    d.row(_meter(d, posted_us=window.to_us))


def stop(d: Decision, at_us: int, cause: Cause, reason: str = "") -> Settlement:
    """It ends, for the first time: what is still due is posted, and what the policy gives back is given.

    `at_us`: the accepted time of a release, the last sign of life of a node that is lost.
    """
    s: Allocation = d.state
    policy, usage, posted_us = _policy(d), _usage(d), _posted_us(d)
    end = settle(policy, Meter(usage, posted_us), cause, reason, at_us)
    through_us = max(posted_us, end.stop_us)
    d.part(
        "billing", state="stopped", stopped_us=end.stop_us, cause=cause, reason=reason, rule_id=end.rule.id,
        posted_us=through_us, debited=end.debited, credited=end.credited,
    )  # fmt: skip
    debits = [_debit(d, window, policy.currency) for window in end.windows][-1:]
    key = f"{s.billing.meter_id}:minimum"
    entries = [
        *debits, *_entry(d, "debit", end.minimum, f"debit:{key}", policy.currency),
        *_entry(d, "credit", end.overrun, overrun_key(d), policy.currency),
        *_entry(d, "credit", end.policy_credit, credit_key(d), policy.currency, rule_id=end.rule.id),
    ]  # fmt: skip
    d.row(_meter(d, posted_us=through_us))
    _evaluated(d, {
        "cause": cause, "reason": reason, "rule_id": end.rule.id, "stop_us": end.stop_us, "asked_us": at_us,
        "accepted_us": s.ending.accepted_us or d.now_us,
        "posted_through_us": posted_us, "prior_credits": 0, "posted": end.posted, "final": end.final,
        "minimum": end.minimum, "overrun": end.overrun, "base": end.base, "bp": end.bp, "raw": end.raw,
        "capped": end.capped, "policy_credit": end.policy_credit, "debited": end.debited,
    })  # fmt: skip
    _tell(d, entries)
    return end


def lowered(d: Decision, at_us: int, cause: Cause) -> Lowered | None:
    """A later cause proves an earlier end: the stop falls, what was charged past it is given back, capped (B4, B6).

    None where it proves nothing.
    """
    s: Allocation = d.state
    own, usage, policy = s.billing, _usage(d), _policy(d)
    if own.stopped_us is None:
        return None
    found = lower(usage, own.stopped_us, own.debited, own.credited, at_us)
    if found is None:
        return None
    d.part("billing", stopped_us=found.stop_us, credited=own.credited + found.overrun)
    d.row(_meter(d, posted_us=own.posted_us))
    _evaluated(d, {
        "cause": cause, "reason": "", "rule_id": own.rule_id, "stop_us": found.stop_us, "asked_us": at_us,
        "was_us": own.stopped_us, "posted_through_us": own.posted_us, "prior_credits": own.credited,
        "owed": found.owed, "overrun": found.overrun, "capped": found.capped, "policy_credit": 0,
        "debited": own.debited,
    })  # fmt: skip
    _tell(d, _entry(d, "credit", found.overrun, overrun_key(d), policy.currency))
    return found


def end_us(d: Decision, cause: Cause, reason: str, accepted_us: int, beat_us: int) -> int:
    """Where the meter's policy has a rental end for this cause: when that was accepted, or at the last beat."""
    by_beat = _policy(d).rule_for(cause, reason).stop_at == "last_good_heartbeat" and beat_us > 0
    return min(accepted_us, beat_us) if by_beat else accepted_us


def meter_ref(d: Decision) -> str:
    """target_ref of the meter."""
    return f"meter:{d.state.billing.meter_id}"


def overrun_key(d: Decision) -> str:
    """The ledger key of what is given back for windows posted past the stop."""
    return f"credit:{d.state.billing.meter_id}:overrun:{d.state.billing.stopped_us}"


def credit_key(d: Decision) -> str:
    """The ledger key of what the rule gives back."""
    return f"credit:{d.state.billing.meter_id}:{d.state.billing.rule_id}"


def told(d: Decision) -> dict[str, Any]:
    """What a notification says of the money."""
    own = d.state.billing
    if own.state != "stopped":
        return {}
    return {
        "stopped_us": own.stopped_us, "debited_minor": own.debited, "credited_minor": own.credited,
        "currency": _policy(d).currency, "rule_id": own.rule_id or None,
    }  # fmt: skip


def _policy(d: Decision) -> Policy:
    return facts(d).policy_of(d.state.billing.policy_sha256)


def _usage(d: Decision) -> Usage:
    s: Allocation = d.state
    return Usage(s.rate_uminor_per_hour, s.rental.activated_us or 0, _policy(d).time.unit_us)


def _posted_us(d: Decision) -> int:
    """Own rows are written by own turns alone, one after the other: what is known of them is how they are."""
    s: Allocation = d.state
    known_us = facts(d).posted_us(s.billing.meter_id or "") or 0
    return max(known_us, s.billing.posted_us, s.rental.activated_us or 0)


def _debit(d: Decision, window: Window, currency: str) -> LedgerRow:
    meter_id = d.state.billing.meter_id
    key = f"debit:{meter_id}:{window.start_us}"
    (row,) = _entry(d, "debit", window.amount_minor, key, currency, window_us=window.start_us, zero=True)
    return row


def _entry(
    d: Decision, entry_type: str, amount: int, key: str, currency: str, *, rule_id: str | None = None,
    window_us: int | None = None, zero: bool = False,
) -> list[LedgerRow]:  # fmt: skip
    """The entry, written; none of nothing, but for a window."""
    if not amount and not zero:
        return []
    meter_id = d.state.billing.meter_id
    said = {"meter": meter_id, "window": window_us, "amount_minor": amount, "currency": currency}
    row = LedgerRow(
        d.mint("ent"), d.state.account_id, meter_id, entry_type, amount, currency, key, sha256(canonical(said)),
        rule_id, window_us, d.now_us,
    )  # fmt: skip
    d.row(row)
    return [row]


def _tell(d: Decision, entries: list[LedgerRow]) -> None:
    if entries:
        body = [asdict(entry) for entry in entries]
        d.tell("account", d.state.account_id, LedgerPosted(body, d.recovery_trace_id))


def _evaluated(d: Decision, details: dict[str, Any]) -> None:
    """Every evaluation is audited with all that it came from, also one that gives nothing."""
    s, policy = d.state, _policy(d)
    d.audit("billing.credit.evaluated", meter_ref(d), details={
        **details, "allocation_id": d.id, "account_id": s.account_id, "rate_uminor_per_hour": s.rate_uminor_per_hour,
        "started_us": s.rental.activated_us, "credited": s.billing.credited, "policy_version": s.billing.policy_version,
        "policy_sha256": s.billing.policy_sha256, "currency": policy.currency,
    })  # fmt: skip


def _meter(d: Decision, *, posted_us: int | None = None) -> MeterRow:
    s: Allocation = d.state
    own, start_us, time = s.billing, s.rental.activated_us or 0, _policy(d).time
    return MeterRow(
        own.meter_id or "", d.id, s.account_id, own.state, s.rate_uminor_per_hour, own.policy_version,
        own.policy_sha256, start_us, own.stopped_us, own.cause or None,
        own.posted_us if posted_us is None else posted_us, time.unit_us, time.window_us,
    )  # fmt: skip


def record(d: Decision, run: Run, overrun: int, credit: int, **stopped: Any) -> None:
    """The records of a stop in its run: the meter's, and one for each amount given back (R08, R09)."""
    of = d.state.rental.ref or f"{d.state.trace_id}:{d.state.span_id}"
    run.compensate("cancel", "state_change", "meter", meter_ref(d), "success", of=of, cause=run.id, duration_ms=0,
                   metadata=stopped)  # fmt: skip
    account = f"ledger:{d.state.account_id}"
    for key, amount in ((overrun_key(d), overrun), (credit_key(d), credit)):
        if amount:
            run.compensate(
                "reverse", "state_change", "charge", f"{account}/{key}", "success", of=of, cause=run.id,
                metadata={"amount_minor": amount, "currency": _policy(d).currency},
            )  # fmt: skip


def net(d: Decision) -> dict[str, Any]:
    """What the rental has cost, as a run's end says it."""
    own = d.state.billing
    return {"debited_minor": own.debited, "credited_minor": own.credited, "currency": _policy(d).currency}
