"""The account actor: an id, a currency; it numbers the events of its ledger."""

from typing import Any

from actors import differences
from actors.account import mirror, world
from actors.account.messages import CreateAccount, ResendCredits
from actors.account.state import Account
from actors.between import BalanceMoved, LedgerPosted
from actors.differences import LookAround
from actors.facts import facts
from amends.domain.kinds import ActorKind
from amends.turn.decision import Decision
from amends.turn.messages import ResolveCase, StepDone


def _create(s: Account | None, m: CreateAccount, d: Decision) -> None:
    if s is not None:
        d.refuse("already_exists", f"the account {m.account_id!r} exists", field="account_id")
    d.create(Account(state="open", currency=m.currency, created_us=d.now_us, stripe_customer_id=m.stripe_customer_id))


def _posted(s: Account, m: LedgerPosted, d: Decision) -> None:
    """The entries stand in the ledger already; their events are numbered by their account."""
    d.recovery_trace_id = m.recovery_trace_id
    for number, entry in enumerate(m.entries, s.event_seq + 1):
        d.announce("account", d.id, "ledger_posted", seq=number, cause=entry["entry_type"], data=entry)
    d.set(event_seq=s.event_seq + len(m.entries))
    mirror.intend(s, m.entries, d)


def _balance(s: Account, m: BalanceMoved, d: Decision) -> None:
    """An event for each time that it falls below zero; what has changed back meanwhile is none."""
    balance = facts(d).balance_minor(d.id)
    if (balance < 0) == s.overdrawn:
        return
    if balance < 0:
        seq = s.event_seq + 1
        d.announce("account", d.id, "balance_negative", seq=seq, data={
            "account_id": d.id, "balance_minor": balance, "currency": s.currency})  # fmt: skip
        d.set(event_seq=seq)
    d.set(overdrawn=balance < 0)


def _step_done(s: Account, m: StepDone, d: Decision) -> None:
    if m.name == world.STEP:
        world.seen(s, m, d)
    else:
        mirror.step_done(s, m, d)


def _resolved(s: Account, m: ResolveCase, d: Decision) -> None:
    mirror.resolved(s, m, d)
    differences.resolved(d, m)


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
    handlers={
        CreateAccount: _create,
        LedgerPosted: _posted,
        BalanceMoved: _balance,
        StepDone: _step_done,
        LookAround: world.look,
        ResendCredits: mirror.resend,
    },
    creates=frozenset({CreateAccount}),
    view=view_account,
    resolved=_resolved,
)
