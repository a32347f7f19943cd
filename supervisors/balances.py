"""What each account has, by the entries that have committed. An account is told when its balance crosses zero.

An index over committed rows; at a start it is read back from what the database keeps with every entry.
"""

from collections import Counter
from collections.abc import Iterable

from actors.account.state import Account
from actors.between import BalanceMoved
from actors.tables import LedgerRow
from amends.runtime.engine import Engine
from amends.turn.decision import Decision
from amends.turn.messages import Envelope

GIVES = ("topup", "credit")


def signed(row: LedgerRow) -> int:
    """What the entry does to the balance, in minor units."""
    return row.amount_minor if row.entry_type in GIVES else -row.amount_minor


class Balances:
    """Follows committed turns."""

    def __init__(self) -> None:
        self._minor: Counter[str] = Counter()  # account → minor units
        self._engine: Engine | None = None
        self._asked: set[str] = set()  # accounts that are about to look

    def attach(self, engine: Engine) -> None:
        """Follow this engine's committed turns."""
        self._engine = engine
        engine.listeners.append(self.follow)

    def load(self, balances: Iterable[tuple[str, int]]) -> None:
        """Take in what accounts have at a start; those that have crossed zero unheard are told."""
        self._minor.update(dict(balances))
        for account_id in self._minor:
            self._look(account_id)

    def minor(self, account_id: str) -> int:
        """What the account has."""
        return self._minor[account_id]

    def follow(self, decision: Decision) -> None:
        """A turn has committed."""
        before, state = decision.before, decision.state
        if isinstance(state, Account) and before is not None and before.paused and not state.paused:
            self._look(decision.id)  # while it was paused it could not look
        for row in decision.rows:
            if type(row) is LedgerRow:
                had = self._minor[row.account_id]
                self._minor[row.account_id] = has = had + signed(row)
                if (had < 0) != (has < 0):
                    self._look(row.account_id)

    def _look(self, account_id: str) -> None:
        engine = self._engine
        assert engine is not None
        account = engine.store.get("account", account_id)
        if not isinstance(account, Account) or account_id in self._asked:
            return
        if account.overdrawn == (self._minor[account_id] < 0):
            return
        self._asked.add(account_id)

        def done(_: bool) -> None:
            self._asked.discard(account_id)
            self._look_later(account_id)

        engine.tell("account", account_id, Envelope(BalanceMoved(), priority=True, done=done))

    def _look_later(self, account_id: str) -> None:
        """It may have crossed back while the account looked; that crossing was not told."""
        account = self._engine.store.get("account", account_id) if self._engine is not None else None
        if isinstance(account, Account) and account.overdrawn != (self._minor[account_id] < 0) and not account.paused:
            self._look(account_id)
