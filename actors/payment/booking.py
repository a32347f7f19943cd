"""Entries of payments: top-ups, refunds, what disputes take and give back; each ledger key is booked once.

Amounts are in the currency's own minor unit.
"""

from msgspec.structs import asdict

from actors.between import LedgerPosted
from actors.facts import facts
from actors.payment.state import Payment, Said
from actors.tables import LedgerRow
from amends.turn.decision import Decision
from amends.values.canonical import canonical, sha256

# Stripe counts these in hundredths that do not exist (its list of special cases).
IN_HUNDREDTHS = ("isk", "ugx")
MOST_BOOKED = 1_000  # entries of one payment


def book(d: Decision, entry_type: str, key: str, said: Said) -> None:
    """One entry of the payment's account, and the word of it to the account."""
    s: Payment = d.state
    if len(s.booked) >= MOST_BOOKED:
        d.refuse("throttled", f"the payment {d.id} has {MOST_BOOKED} entries already; book further ones by hand")
    amount = own_units(d, said)
    hashed = {"payment": d.id, "key": key, "amount_minor": amount, "currency": said.currency}
    row = LedgerRow(
        d.mint("ent"), s.account_id, None, entry_type, amount, said.currency, key, sha256(canonical(hashed)), None,
        None, d.now_us,
    )  # fmt: skip
    d.row(row)
    d.set(booked=(*s.booked, key))
    d.tell("account", s.account_id, LedgerPosted([asdict(row)]))


def own_units(d: Decision, said: Said) -> int:
    """The amount in the currency's own minor unit."""
    policy = facts(d).policy
    if said.currency in IN_HUNDREDTHS and policy.currency == said.currency and not policy.minor_unit_exponent:
        return said.amount_minor // 100
    return said.amount_minor
