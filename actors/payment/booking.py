"""Entries of payments: top-ups, refunds, what disputes take and give back; each ledger key is booked once.

Amounts are in the currency's own minor unit.
"""

from msgspec.structs import asdict

from actors.between import LedgerPosted
from actors.money.currencies import own_units
from actors.payment.state import Payment, Said
from actors.tables import LedgerRow
from amends.turn.decision import Decision
from amends.values.canonical import canonical, sha256

MOST_BOOKED = 1_000  # entries of one payment


def book(d: Decision, entry_type: str, key: str, said: Said, minor: int | None = None) -> None:
    """One entry of the payment's account, and the word of it to the account; `minor` where not what the event says."""
    s: Payment = d.state
    if len(s.booked) >= MOST_BOOKED:
        d.refuse("throttled", f"the payment {d.id} has {MOST_BOOKED} entries already; book further ones by hand")
    amount = own_units(said.amount_minor, said.currency) if minor is None else minor
    hashed = {"payment": d.id, "key": key, "amount_minor": amount, "currency": said.currency}
    row = LedgerRow(
        d.mint("ent"), s.account_id, None, entry_type, amount, said.currency, key, sha256(canonical(hashed)), None,
        None, d.now_us,
    )  # fmt: skip
    d.row(row)
    d.set(booked={**s.booked, key: amount})
    d.tell("account", s.account_id, LedgerPosted([asdict(row)]))
