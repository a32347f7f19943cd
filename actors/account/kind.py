"""The account actor: an id, a currency; it numbers the events of its ledger."""

from typing import Any

from actors.account.messages import CreateAccount
from actors.between import LedgerPosted
from amends.domain.kinds import ActorKind, ActorState
from amends.turn.decision import Decision


class Account(ActorState, frozen=True, kw_only=True):
    """Who pays, and in which currency."""

    currency: str
    created_us: int
    stripe_customer_id: str | None = None


def _create(s: Account | None, m: CreateAccount, d: Decision) -> None:
    if s is not None:
        d.refuse("already_exists", f"the account {m.account_id!r} exists")
    d.create(Account(state="open", currency=m.currency, created_us=d.now_us, stripe_customer_id=m.stripe_customer_id))


def _posted(s: Account, m: LedgerPosted, d: Decision) -> None:
    """The entries stand in the ledger already; their events are numbered by their account."""
    d.recovery_trace_id = m.recovery_trace_id
    for number, entry in enumerate(m.entries, s.event_seq + 1):
        d.announce("account", d.id, "ledger_posted", seq=number, cause=entry["entry_type"], data=entry)
    d.set(event_seq=s.event_seq + len(m.entries))


def view_account(s: Account, identifier: str, d: Any) -> dict[str, Any]:
    """Row of `public_v1.account`."""
    return {
        "account_id": identifier, "currency": s.currency, "stripe_customer_id": s.stripe_customer_id,
        "created_us": s.created_us, "state": s.state, "version": s.version,
    }  # fmt: skip


ACCOUNT = ActorKind(
    name="account",
    table="accounts",
    columns={"stripe_customer_id": str},
    state_type=Account,
    states={"open": "forever"},
    transitions={("", "open"): "account.create"},
    handlers={CreateAccount: _create, LedgerPosted: _posted},
    creates=frozenset({CreateAccount}),
    view=view_account,
)
