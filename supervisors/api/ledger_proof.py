"""`ops.ledger.verify`: meters, payments and balances reckoned anew, and Stripe's side compared. A page a request.

Nothing is written, and nothing is one snapshot: what differs is looked at again before it is told. Once Stripe cannot
be asked, it is asked no more until the end: the pages that follow are of the part `balances`.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta

from actors.account.mirror import GRACE_US
from actors.fields import AccountId
from actors.money.currencies import own_units, stripe_units
from actors.money.policy import Policy
from actors.money.proof import differences, entries_of
from amends.domain.api import Request
from amends.ports.reading import Asker, Reader
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from amends.values.errors import Rejected, TooSlow, Unavailable
from supervisors.api.sides import Sides

METERS, PAYMENTS, ACCOUNTS = 200, 200, 100
ASKED = 10  # customers of a page that Stripe is asked about, a call or more each
ENTRIES, SUMMED = 20_000, 200_000  # of a page at most, read and summed up; one thing with more is a page of its own
MOST_WRONG = 100  # told one by one on a page
PARTS = {"meters": "payments:", "payments": "accounts:", "accounts": None, "balances": None}  # and what follows
NOT_KNOWN = "what Stripe has of it is not known"
# `not_compared`: customers of whom it was not asked what Stripe has, or in vain.
COUNTS = ("meters", "payments", "accounts", "entries", "mirrored", "not_compared")
Row = dict[str, Any]
PolicyOf = Callable[[str], Policy]
At = Mapping[str, Sequence[tuple[int, str]]]  # what a customer has at Stripe: key → (minor, currency) of each credit
Mirrored = Callable[[str], Awaitable[At]]
Found = tuple[list[Row], Row, str | None]  # what is wrong, what was checked, the last one of a full page


class LedgerVerify(Request, frozen=True):
    """ops.ledger.verify; of one account, or of all. `cursor` is that of the page before."""

    account_id: AccountId | None = None
    cursor: Annotated[str, Meta(pattern=r"^(meters|payments|accounts|balances):[A-Za-z0-9_-]{0,255}$(?!\n)")] | None = (
        None
    )


class Page:
    """One page of reading: whose, after which row, and whether Stripe is asked.

    `told`: what Stripe said, by customer; `away`: the word of its first silence, after which it is asked no more.
    """

    def __init__(self, side: Reader, asker: Asker, after: str, account: str, *, asks: bool = False) -> None:
        self._side, self._asker, self.after, self.account, self.asks = side, asker, after, account, asks
        self.told: dict[str, At] = {}
        self.away: Row | None = None

    async def rows(self, name: str, *args: Any) -> list[Row]:
        """The rows of a named read."""
        return await self._side.rows(name, *args, asker=self._asker)


class LedgerProof:
    """Answers it. `mirrored`: what Stripe has of a customer; None where nothing is mirrored."""

    def __init__(
        self, sides: Sides, policy_of: PolicyOf, now_us: Callable[[], int], mirrored: Mirrored | None = None
    ) -> None:
        self._sides, self._policy_of, self._mirrored, self._now_us = sides, policy_of, mirrored, now_us
        self._parts: Mapping[str, Callable[[Page], Awaitable[Found]]] = {
            "meters": self._meters, "payments": self._payments, "accounts": self._accounts, "balances": self._accounts,
        }  # fmt: skip

    def endpoints(self) -> list[Endpoint]:
        """Its subject."""
        return [Endpoint(subject="ops.ledger.verify", request=LedgerVerify, role="viewer", answer=self._verify)]

    async def _verify(self, request: LedgerVerify, identity: Identity) -> Row:
        side, asker = self._sides.of(identity)
        if request.account_id is not None:
            await side.get("account", request.account_id, asker)  # or it is refused: there is none
        part, _, after = (request.cursor or "meters:").partition(":")
        page = Page(
            side, asker, after, request.account_id or "", asks=part == "accounts" and self._mirrored is not None
        )
        wrong, checked, last = await self._parts[part](page)
        if any(each["what"] != NOT_KNOWN for each in wrong):  # something may have been written between two reads
            again, checked, last = await self._parts[part](page)
            known = {_key(each) for each in wrong}
            wrong = [each for each in again if _key(each) in known]
        part = part if page.away is None else "balances"
        return {
            "checked": dict.fromkeys(COUNTS, 0) | checked, "wrong": wrong[:MOST_WRONG], "wrong_count": len(wrong),
            "cursor": f"{part}:{last}" if last is not None else PARTS[part],
        }  # fmt: skip

    # --- meters --------------------------------------------------------------------------------------

    async def _meters(self, page: Page) -> Found:
        meters = await page.rows("proof_meters", page.after, page.account, METERS)
        kept = bounded(meters, lambda meter: int(meter["windows"]), ENTRIES)
        names = [meter["meter_id"] for meter in kept]
        entries, evaluations = await entries_by_meter(page, names), await evaluations_by_meter(page, names)
        wrong = [
            each for meter in kept
            for each in self._meter(meter, entries.get(meter["meter_id"], []), evaluations.get(meter["meter_id"], []))
        ]  # fmt: skip
        last = names[-1] if names and (len(meters) == METERS or len(kept) < len(meters)) else None
        return wrong, {"meters": len(kept), "entries": sum(map(len, entries.values()))}, last

    def _meter(self, meter: Row, entries: list[Row], evaluations: list[Row]) -> Iterator[Row]:
        ref = f"meter:{meter['meter_id']}"
        try:
            policy = self._policy_of(meter["policy_sha256"])
        except KeyError:
            yield _wrong(ref, "its policy is not stored, or cannot be read")
            return
        ends = [row["details"] for row in evaluations]
        # A meter of a release that posted nothing has no units; it must have no entries.
        wanted = entries_of(meter, policy, ends) if meter["unit_us"] else {}
        found = {row["idempotency_key"]: row["amount_minor"] for row in entries}
        for each in differences(wanted, found):
            yield _wrong(ref, "an entry is not what the meter comes to", key=each.key, wanted_minor=each.wanted_minor,
                         found_minor=each.found_minor)  # fmt: skip
        for row in entries:
            own = (meter["account_id"], policy.currency, row["idempotency_key"].partition(":")[0])
            if (row["account_id"], row["currency"], row["entry_type"]) != own:
                yield _wrong(
                    ref, "an entry is another account's, of another currency or kind", key=row["idempotency_key"]
                )
        if meter["state"] == "stopped" and not ends and meter["unit_us"]:
            yield _wrong(ref, "it has stopped, and no evaluation of its end is recorded")

    # --- payments ------------------------------------------------------------------------------------

    async def _payments(self, page: Page) -> Found:
        payments = await page.rows("proof_payments", page.after, page.account, PAYMENTS)
        wrong = [each for payment in payments for each in _payment(payment)]
        last = payments[-1]["payment_id"] if len(payments) == PAYMENTS else None
        return wrong, {"payments": len(payments), "entries": sum(len(one["entries"]) for one in payments)}, last

    # --- accounts ------------------------------------------------------------------------------------

    async def _accounts(self, page: Page) -> Found:
        accounts = await page.rows("account_page", page.after, page.account, ACCOUNTS)
        kept = bounded(accounts, lambda account: int(account["entries"]), SUMMED)
        if page.asks:
            kept = bounded(kept, lambda account: bool(account["stripe_customer_id"]), ASKED)
        names = [one["account_id"] for one in kept]
        sums = {row["account_id"]: row for row in await page.rows("sums_of_accounts", names)}
        booked = {row["account_id"]: row for row in await page.rows("booked_of_accounts", names)}
        wrong = [
            each for account in kept
            for each in _account(account, sums.get(account["account_id"], {}), booked.get(account["account_id"], {}))
        ]  # fmt: skip
        vain = await page.rows("waiting_in_vain", names, self._now_us() - GRACE_US)
        wrong += [
            _wrong(f"payment:{row['payment_id']}", f"it waits for the account {row['account_id']}, which is there")
            for row in vain
        ]  # fmt: skip
        counts: Row = {}
        if self._mirrored is not None:
            customers = sorted({one["stripe_customer_id"] for one in kept if one["stripe_customer_id"]})
            at_stripe, counts = await self._at_stripe(page, customers, self._mirrored)
            named = [one["account_id"] for one in kept if one["stripe_customer_id"]]
            never = await page.rows("never_sent", named, self._now_us() - GRACE_US)
            wrong += at_stripe + [
                _wrong(f"account:{row['account_id']}", "a credit was never sent to Stripe", key=row["ledger_key"],
                       wanted_minor=row["amount_minor"]) for row in never
            ]  # fmt: skip
        last = names[-1] if names and (len(accounts) == ACCOUNTS or len(kept) < len(accounts)) else None
        return wrong, {"accounts": len(kept), **counts}, last

    async def _at_stripe(self, page: Page, customers: Sequence[str], mirrored: Mirrored) -> tuple[list[Row], Row]:
        """Each credit that is said to be there is, once, and there is no other of ours (B5)."""
        wrong, counts = list[Row](), Counter[str]()
        for customer in customers:
            own = await page.rows("credits_of_customers", [customer])
            there, unknown = await _told(page, customer, mirrored)
            if there is None:
                own = [row for row in own if row["state"] == "failed"]
            counts.update({"not_compared": 1} if there is None else {"mirrored": len(own)})
            wrong += [*unknown, *_compared(own, there or {})]
        return wrong, dict(counts)


async def _told(page: Page, customer: str, mirrored: Mirrored) -> tuple[At | None, list[Row]]:
    """What Stripe has of a customer, None where that is not known, and the word of it where it is not."""
    ref = f"customer:{customer}"
    if not page.asks or page.away is not None:  # a second look has what it said at the first
        return page.told.get(customer), [page.away] if page.away is not None and page.away["target_ref"] == ref else []
    try:
        page.told[customer] = await mirrored(customer)
        return page.told[customer], []
    except (Rejected, TooSlow) as error:  # of this customer alone
        return None, [_wrong(ref, NOT_KNOWN, detail=str(error))]
    except Unavailable as error:
        page.away = _wrong(ref, NOT_KNOWN, detail=str(error))
        return None, [page.away]


def bounded(rows: Sequence[Row], weight: Callable[[Row], int], most: int) -> Sequence[Row]:
    """As many of the first as weigh no more than a page may, one at least."""
    left = most
    for place, row in enumerate(rows):
        left -= weight(row)
        if left < 0 and place:
            return rows[:place]
    return rows


async def entries_by_meter(page: Page, names: Sequence[str]) -> dict[str, list[Row]]:
    """All entries of these meters."""
    return _by(await page.rows("entries_of_meters", names), lambda row: row["meter_id"])


async def evaluations_by_meter(page: Page, names: Sequence[str]) -> dict[str, list[Row]]:
    """What was evaluated of their ends, in order."""
    found = await page.rows("evaluations_of_meters", [f"meter:{name}" for name in names])
    return _by(found, lambda row: row["target_ref"].partition(":")[2])


def _by(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _payment(payment: Row) -> Iterator[Row]:
    """What it has booked stands in the ledger so, and its top-up is what was paid."""
    ref, topup = f"payment:{payment['payment_id']}", f"topup:{payment['payment_id']}"
    for key, minor in payment["booked"].items():
        kind = "topup" if key.startswith("refund_failed:") else key.partition(":")[0]
        wanted = [minor, payment["account_id"], payment["currency"], kind]
        if payment["entries"].get(key) != wanted:
            found = payment["entries"].get(key)
            yield _wrong(ref, "an entry is not what was booked", key=key, wanted_minor=minor,
                         found_minor=found[0] if found else None)  # fmt: skip
    if payment["booked"].get(topup) != own_units(payment["amount_minor"], payment["currency"]):
        yield _wrong(ref, "the top-up is not what was paid", key=topup, wanted_minor=payment["amount_minor"])


def _account(account: Row, sums: Row, booked: Row) -> Iterator[Row]:
    ref, found = f"account:{account['account_id']}", (sums.get("balance_minor", 0), sums.get("entries", 0))
    if (account["balance_minor"], account["entries"]) != found:
        yield _wrong(ref, "the balance is not what its entries come to", wanted_minor=found[0],
                     found_minor=account["balance_minor"])  # fmt: skip
    paid, known = (
        (sums.get("paid_minor", 0), sums.get("paid_entries", 0)),
        (booked.get("minor", 0), booked.get("entries", 0)),
    )
    if paid != known:
        yield _wrong(ref, "its entries of payments are not what payments have booked", wanted_minor=known[0],
                     found_minor=paid[0])  # fmt: skip
    if sums.get("strays"):
        yield _wrong(ref, f"{sums['strays']} entries name a meter that is another account's, or none")


def _compared(own: Sequence[Row], there: At) -> Iterator[Row]:
    """What Stripe has of one customer against what the ledger says it has."""
    known = {row["ledger_key"]: row for row in own}
    for key in sorted({*there, *known}):
        found, row = [(minor, currency) for minor, currency in there.get(key, ())], known.get(key)
        ref = f"account:{row['account_id']}" if row is not None else "stripe"
        state = row["state"] if row is not None else ""
        if row is not None and stripe_units(row["ledger_minor"] or 0, row["currency"]) != row["amount_minor"]:
            yield _wrong(ref, "a credit was sent with another amount than the ledger has", key=key,
                         wanted_minor=row["ledger_minor"], found_minor=row["amount_minor"])  # fmt: skip
        if state == "failed":
            yield _wrong(
                ref, "a credit never came to Stripe", key=key, wanted_minor=row["amount_minor"] if row else None
            )
        wanted = [(row["amount_minor"], row["currency"])] if row is not None else []
        if (state == "done" and found != wanted) or (state != "done" and found and found != wanted):
            most = wanted[0][0] if wanted else None
            yield _wrong(ref, "Stripe has another credit than the ledger, none, or several", key=key,
                         wanted_minor=most, found_minor=sum(minor for minor, _ in found))  # fmt: skip


def _key(wrong: Row) -> tuple[str, str, str]:
    return wrong["target_ref"], wrong["what"], wrong["key"] or ""


def _wrong(target_ref: str, what: str, **more: Any) -> Row:
    return {
        "target_ref": target_ref,
        "what": what,
        "key": None,
        "wanted_minor": None,
        "found_minor": None,
        "detail": "",
        **more,
    }
