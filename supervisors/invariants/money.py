"""What must hold of meters and the ledger at every committed instant (B1 to B4), from what lies in their rows alone."""

from collections.abc import Iterator, Sequence

from supervisors.invariants.records import Records, Row, Violation, grouped

HOUR_US_MILLIONTHS = 3_600_000_000 * 1_000_000


def counted(meter: Row, until_us: int) -> int:
    """C(until) of a meter's row, in minor units (credit-policy.md)."""
    units = max(0, until_us - meter["started_us"]) // meter["unit_us"]
    amount: int = meter["rate_uminor_per_hour"] * units * meter["unit_us"] // HOUR_US_MILLIONTHS
    return amount


def billed(records: Records) -> Iterator[Violation]:
    """A meter's entries are what it has counted (B1, B2), and give back no more than was taken (B4)."""
    entries = grouped(records.of("ledger_entries"), lambda row: row["meter_id"])
    for meter in records.of("meters"):
        if meter["unit_us"]:  # of one that an older release opened nothing was ever posted
            yield from _entries(meter, entries.get(meter["meter_id"], []))


def balanced(records: Records) -> Iterator[Violation]:
    """What an account has is kept with every entry: the months come to the whole (B1)."""
    for account_id, rows in grouped(records.of("ledger_balances"), lambda row: row["account_id"]).items():
        whole = sum(row["balance_minor"] for row in rows if not row["month"])
        if whole != sum(row["balance_minor"] for row in rows if row["month"]):
            yield Violation("B1", f"account:{account_id}", "its balance is not what its months come to")


def _entries(meter: Row, entries: Sequence[Row]) -> Iterator[Violation]:
    ref = f"meter:{meter['meter_id']}"
    debits = [row for row in entries if row["entry_type"] == "debit"]
    refunds = [row for row in entries if row["entry_type"] == "credit"]
    minimum = sum(row["amount_minor"] for row in debits if row["window_start_us"] is None)
    taken, given = (sum(row["amount_minor"] for row in rows) for rows in (debits, refunds))
    overrun = sum(row["amount_minor"] for row in refunds if ":overrun:" in row["idempotency_key"])
    stopped_us, posted_us = meter["stopped_us"], meter["posted_through_us"]
    until_us = posted_us if stopped_us is None else min(stopped_us, posted_us)
    if given > taken:
        yield Violation("B4", ref, "it has given back more than it took")
    if taken - overrun != counted(meter, until_us) + minimum and given != taken:
        yield Violation("B1", ref, "its entries are not what it has counted")
    if stopped_us is not None and posted_us < stopped_us:
        yield Violation("B1", ref, "it has stopped, and not all of it is posted")
    starts = sorted(row["window_start_us"] for row in debits if row["window_start_us"] is not None)
    first_us = meter["started_us"] - meter["started_us"] % meter["window_us"]
    if posted_us > meter["started_us"] and starts != list(range(first_us, posted_us, meter["window_us"])):
        yield Violation("B2", ref, "its windows have a gap")
