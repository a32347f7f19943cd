"""The account actor: an id, a currency, nothing that changes yet."""

from typing import Any

from actors.account.messages import CreateAccount
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
    handlers={CreateAccount: _create},
    creates=frozenset({CreateAccount}),
    view=view_account,
)
