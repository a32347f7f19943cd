"""Whose a payment is: accounts by their customer at Stripe, and the payments that wait for an account.

Indexes over committed states, rebuilt at a start.
"""

from actors.account.state import Account
from actors.payment.messages import AccountAppeared
from actors.payment.state import Payment, Said
from amends.runtime.engine import Engine
from amends.turn.decision import Decision
from amends.turn.messages import Envelope
from supervisors.indexing import all_of

Key = tuple[str, str]  # of an account, or of a customer at Stripe


class Payers:
    """Follows committed turns; a payment that waits is told when an account that it may be for appears."""

    def __init__(self) -> None:
        self._customers: dict[str, list[str]] = {}  # customer → accounts, one as a rule
        self._waiting: dict[str, set[Key]] = {}  # payment → what its events name
        self._wanted: dict[Key, set[str]] = {}  # the other way round
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Follow this engine's committed turns."""
        self._engine = engine
        engine.listeners.append(self.follow)

    async def load(self) -> None:
        """Take in what lives; a payment whose account came while nobody looked is told."""
        assert self._engine is not None
        async for account_id, account in all_of(self._engine, "account"):
            self._add(account_id, account)
        async for payment_id, payment in all_of(self._engine, "payment"):
            self._wait(payment_id, payment)

    def payer(self, account_id: str, customer: str) -> tuple[str, str] | None:
        """(account, currency) of who pays: the account that is named, else the only one with that Stripe customer."""
        assert self._engine is not None
        known = self._customers.get(customer, []) if customer else []
        name = account_id or (known[0] if len(known) == 1 else "")
        account = self._engine.store.get("account", name) if name else None
        return (name, account.currency) if isinstance(account, Account) else None

    def wanting(self, account_id: str, customer: str) -> set[str]:
        """The payments that wait for that account, or for one with that Stripe customer."""
        return self._wanted.get(("account", account_id), set()) | self._wanted.get(("customer", customer), set())

    def load_known(self, payment_id: str, payment: object) -> None:
        """Take in a payment that another index knows."""
        self._wait(payment_id, payment)

    def is_first(self, account_id: str, customer: str | None) -> bool:
        """Whether it is the account that is asked what this customer has; one does for all."""
        return bool(customer) and min(self._customers.get(customer or "", [""])) == account_id

    @property
    def waiting(self) -> int:
        """How many payments wait for their account, or for themselves."""
        return len(self._waiting)

    def follow(self, decision: Decision) -> None:
        """A turn has committed."""
        if decision.kind.name == "payment":
            self._wait(decision.id, decision.state)
        elif decision.kind.name == "account" and decision.before is None and decision.state is not None:
            customer = self._add(decision.id, decision.state)
            for payment_id in sorted(self.wanting(decision.id, customer)):
                self._tell(payment_id)

    def _add(self, account_id: str, account: object) -> str:
        customer = (account.stripe_customer_id or "") if isinstance(account, Account) else ""
        if customer:
            self._customers.setdefault(customer, []).append(account_id)
        return customer

    def _wait(self, payment_id: str, payment: object) -> None:
        for key in self._waiting.pop(payment_id, ()):
            self._wanted[key].discard(payment_id)
            if not self._wanted[key]:
                del self._wanted[key]
        if not isinstance(payment, Payment) or payment.state not in ("noted", "refused"):
            return
        paid = [said for said in payment.waiting if said.what == "paid"]
        keys = self._waiting[payment_id] = {_key(said) for said in paid if said.account_id or said.customer}
        for key in keys:
            self._wanted.setdefault(key, set()).add(payment_id)
        payers = [(said, self.payer(said.account_id, said.customer)) for said in paid]
        if any(payer is not None and (payment.state == "noted" or payer[1] == said.currency) for said, payer in payers):
            self._tell(payment_id)

    def _tell(self, payment_id: str) -> None:
        assert self._engine is not None
        self._engine.tell("payment", payment_id, Envelope(AccountAppeared(), priority=True))


def _key(said: Said) -> Key:
    return ("account", said.account_id) if said.account_id else ("customer", said.customer)
