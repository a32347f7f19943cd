"""What of the ledger is at Stripe, for a comparison with the ledger: the credits that carry a ledger key."""

from msgspec import Struct

from adapters.stripe.api import MAX_PAGES, SOURCE, StripeApi, TooManyTransactions
from adapters.stripe.outcomes import outcome_of
from amends.values.errors import Rejected, TooSlow, Unavailable


class Mirrored(Struct, frozen=True):
    """A credit at Stripe. `amount_minor` is the ledger's: above zero for a credit."""

    transaction: str
    amount_minor: int
    currency: str


class StripeLedger:
    """Reads what `StripeMirror` has made."""

    def __init__(self, api: StripeApi, *, max_pages: int = MAX_PAGES) -> None:
        self._api, self._max_pages = api, max_pages

    async def mirrored(self, customer: str) -> dict[str, list[Mirrored]]:
        """Ledger key → its transactions, the newest first. More than one is a credit that was made twice.

        Raises `Unavailable` when Stripe cannot be asked; of this customer alone `Rejected` when it knows none such, and
        `TooSlow` when that one has more than may be read. Without a time limit.
        """
        found: dict[str, list[Mirrored]] = {}
        try:
            async for one in self._api.transactions(customer, self._max_pages):
                if one.source == SOURCE and one.ledger_key:
                    credit = Mirrored(one.transaction, -one.amount_minor, one.currency)
                    found.setdefault(one.ledger_key, []).append(credit)
        except TooManyTransactions as error:
            raise TooSlow(str(error)) from None
        except StripeApi.ALL_ERRORS as error:
            text = self._api.without_key(f"Stripe: {error}")
            if outcome_of(error, text).code == "stripe_refused":
                raise Rejected("not_found", text) from None
            raise Unavailable(text) from None
        return found
