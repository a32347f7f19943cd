"""`ops.ledger.verify` and `ops.policy.backtest`: the ledger reckoned anew, and by another policy. A page a request.

Nothing is written. A page bounds what is read at once; who asks goes on with its `cursor`.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta

from actors.fields import AccountId
from actors.money.backtest import NotComparable, replay
from actors.money.policy import Policy
from actors.money.proof import differences, entries_of
from amends.domain.api import Instant, Request
from amends.ports.reading import Asker, Reader
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from amends.values.errors import BadConfiguration, Rejected, Unavailable
from supervisors.api.sides import Sides
from supervisors.policy_file import read

METERS, ENTRIES = 200, 20_000  # of a page, at most; one meter with more is a page of its own
ACCOUNTS, PAYMENTS = 20, 200
MOST_WRONG = 100  # told one by one on a page
Row = dict[str, Any]
Cursor = Annotated[str, Meta(pattern=r"^(meters|payments|accounts):[A-Za-z0-9_-]{0,255}$(?!\n)")]
PolicyOf = Callable[[str], Policy]
Mirrored = Callable[[str], Awaitable[Mapping[str, Sequence[tuple[int, str]]]]]  # customer → key → (minor, currency)


class LedgerVerify(Request, frozen=True):
    """ops.ledger.verify; of one account, or of all. `cursor` is that of the page before."""

    account_id: AccountId | None = None
    cursor: Cursor | None = None


class PolicyBacktest(Request, frozen=True):
    """ops.policy.backtest; `toml` is a whole policy file."""

    toml: Annotated[str, Meta(min_length=1, max_length=32_768)]
    since_us: Instant
    cursor: Annotated[str, Meta(pattern=r"^meter_[0-9a-z]{26}$(?!\n)")] | None = None


class Proofs:
    """Answers them. `mirrored`: what Stripe has of a customer; None where nothing is mirrored."""

    def __init__(self, sides: Sides, policy_of: PolicyOf, mirrored: Mirrored | None = None) -> None:
        self._sides, self._policy_of, self._mirrored = sides, policy_of, mirrored

    def endpoints(self) -> list[Endpoint]:
        """Its subjects."""
        return [
            Endpoint(subject="ops.ledger.verify", request=LedgerVerify, role="viewer", answer=self._verify),
            Endpoint(subject="ops.policy.backtest", request=PolicyBacktest, role="viewer", answer=self._backtest),
        ]

    # --- ops.ledger.verify ---------------------------------------------------------------------------

    async def _verify(self, request: LedgerVerify, identity: Identity) -> Row:
        side, asker = self._sides.of(identity)
        part, _, after = (request.cursor or "meters:").partition(":")
        page = Page(side, asker, after, request.account_id or "")
        wrong, checked, last = await getattr(self, f"_{part}")(page)
        following = {"meters": "payments:", "payments": "accounts:", "accounts": None}[part]
        return {
            "checked": {"meters": 0, "payments": 0, "accounts": 0, "entries": 0, "mirrored": 0, **checked},
            "wrong": wrong[:MOST_WRONG], "wrong_count": len(wrong),
            "cursor": f"{part}:{last}" if last is not None else following,
        }  # fmt: skip

    async def _meters(self, page: "Page") -> tuple[list[Row], Row, str | None]:
        meters = await page.rows("proof_meters", page.after, page.account, METERS)
        more, kept = len(meters) == METERS, _bounded(meters)
        entries, evaluations = await _recorded(page, kept)
        wrong: list[Row] = []
        for meter in kept:
            name = meter["meter_id"]
            found = {row["idempotency_key"]: row["amount_minor"] for row in entries.get(name, ())}
            try:
                policy = self._policy_of(meter["policy_sha256"])
            except KeyError:
                wrong.append(_wrong(f"meter:{name}", "its policy is not stored, or cannot be read"))
                continue
            # A meter of a release that posted nothing has no units; it must have no entries.
            ends = [row["details"] for row in evaluations.get(name, ())]
            wanted = entries_of(meter, policy, ends) if meter["unit_us"] else {}
            wrong += [
                _wrong(f"meter:{name}", "an entry is not what the meter comes to", key=each.key,
                       wanted_minor=each.wanted_minor, found_minor=each.found_minor)
                for each in differences(wanted, found)
            ]  # fmt: skip
            if meter["state"] == "stopped" and not ends and meter["unit_us"]:
                wrong.append(_wrong(f"meter:{name}", "it has stopped, and no evaluation of its end is recorded"))
        checked = {"meters": len(kept), "entries": sum(map(len, entries.values()))}
        return wrong, checked, kept[-1]["meter_id"] if kept and (more or len(kept) < len(meters)) else None

    async def _payments(self, page: "Page") -> tuple[list[Row], Row, str | None]:
        payments = await page.rows("proof_payments", page.after, page.account, PAYMENTS)
        wrong: list[Row] = []
        for payment in payments:
            ref, keys = f"payment:{payment['payment_id']}", payment["keys"]
            missing = [key for key in payment["booked"] if key not in keys]
            wrong += [_wrong(ref, "an entry that was booked is not there", key=key) for key in missing]
            topup = f"topup:{payment['payment_id']}"
            if topup in keys and not 0 < keys[topup] <= payment["amount_minor"]:
                wrong.append(_wrong(ref, "the top-up is not what was paid", key=topup, found_minor=keys[topup],
                                    wanted_minor=payment["amount_minor"]))  # fmt: skip
        last = payments[-1]["payment_id"] if len(payments) == PAYMENTS else None
        return wrong, {"payments": len(payments), "entries": sum(len(one["keys"]) for one in payments)}, last

    async def _accounts(self, page: "Page") -> tuple[list[Row], Row, str | None]:
        accounts = await page.rows("proof_accounts", page.after, page.account, ACCOUNTS)
        wrong: list[Row] = []
        for account in accounts:
            kept, found = account["balance_minor"] or 0, account["found_minor"]
            if (kept, account["entries"] or 0) != (found, account["found_entries"]):
                wrong.append(_wrong(f"account:{account['account_id']}", "the balance is not what its entries come to",
                                    wanted_minor=found, found_minor=kept))  # fmt: skip
        credits_ = await page.rows("credits_of_accounts", [one["account_id"] for one in accounts])
        mirrored = [row for row in credits_ if row["state"] is not None]
        wrong += [
            _wrong(f"account:{row['account_id']}", "a credit never came to Stripe", key=row["ledger_key"])
            for row in mirrored if row["state"] == "failed"
        ]  # fmt: skip
        wrong += await self._at_stripe(accounts, mirrored)
        last = accounts[-1]["account_id"] if len(accounts) == ACCOUNTS else None
        return wrong, {"accounts": len(accounts), "mirrored": len(mirrored)}, last

    async def _at_stripe(self, accounts: Iterable[Row], mirrored: Sequence[Row]) -> list[Row]:
        """Each credit that is said to be there is, once, and there is no other of ours (B5)."""
        wrong: list[Row] = []
        if self._mirrored is None:
            return wrong
        for account in accounts:
            ref = f"account:{account['account_id']}"
            own = [row for row in mirrored if row["account_id"] == account["account_id"]]
            for customer in sorted({row["customer"] for row in own} | {account["stripe_customer_id"]} - {None}):
                try:
                    there = await self._mirrored(customer)
                except Unavailable as error:
                    wrong.append(_wrong(ref, f"what Stripe has of {customer} is not known: {error}"))
                else:
                    wrong += _compared(ref, [row for row in own if row["customer"] == customer], there)
        return wrong

    # --- ops.policy.backtest -------------------------------------------------------------------------

    async def _backtest(self, request: PolicyBacktest, identity: Identity) -> Row:
        try:
            policy = read(request.toml.encode(), "toml")
        except BadConfiguration as error:
            raise Rejected("invalid_request", str(error), field="toml") from None
        side, asker = self._sides.of(identity)
        page = Page(side, asker, request.cursor or "", "")
        meters = await page.rows("ended_meters", request.since_us, page.after, METERS)
        entries, evaluations = await _recorded(page, meters)
        total = dict.fromkeys(("meters", "charged_minor", "credited_minor", "would_charge_minor", "would_credit_minor",
                               "not_comparable"), 0)  # fmt: skip
        rules: dict[str, Row] = {}
        changes: list[Row] = []
        for meter in meters:
            change = self._replayed(policy, meter, entries.get(meter["meter_id"], []), evaluations, total, rules)
            changes += [change] if change is not None and change["difference_minor"] else []
        changes.sort(key=lambda row: -abs(row["difference_minor"]))
        return {
            "policy_version": policy.version, "policy_sha256": policy.sha256, **total, "rules": rules,
            "changes": changes[:MOST_WRONG],
            "cursor": meters[-1]["meter_id"] if len(meters) == METERS else None,
        }  # fmt: skip

    def _replayed(self, policy: Policy, meter: Row, own: Sequence[Row], evaluations: Mapping[str, Sequence[Row]],
                  total: Row, rules: dict[str, Row]) -> Row | None:  # fmt: skip
        name, ends = meter["meter_id"], evaluations.get(meter["meter_id"], ())
        charged = sum(row["amount_minor"] for row in own if row["entry_type"] == "debit")
        credited = sum(row["amount_minor"] for row in own if row["entry_type"] == "credit")
        total["meters"] += 1
        try:
            first, accepted_us = (ends[0]["details"], ends[0]["at_us"]) if ends else ({}, 0)
            if not ends:
                raise NotComparable("no evaluation is recorded")
            was = self._policy_of(meter["policy_sha256"]).rule_for(first["cause"], first["reason"])
            by_beat = was.stop_at == "last_good_heartbeat"
            would = replay(policy, meter, first, accepted_us=accepted_us, by_beat=by_beat)
        except (NotComparable, KeyError):
            total["not_comparable"] += 1
            return None
        total["charged_minor"] += charged
        total["credited_minor"] += credited
        total["would_charge_minor"] += would.charged
        total["would_credit_minor"] += would.credited
        rule = rules.setdefault(would.rule_id, {"meters": 0, "credited_minor": 0})
        rule["meters"] += 1
        rule["credited_minor"] += would.credited
        return {
            "meter_id": name, "account_id": meter["account_id"], "rule_id": would.rule_id,
            "net_minor": charged - credited, "would_be_minor": would.net,
            "difference_minor": would.net - (charged - credited),
        }  # fmt: skip


class Page:
    """One page of reading: whose, and after which row."""

    def __init__(self, side: Reader, asker: Asker, after: str, account: str) -> None:
        self._side, self._asker, self.after, self.account = side, asker, after, account

    async def rows(self, name: str, *args: Any) -> list[Row]:
        """The rows of a named read."""
        return await self._side.rows(name, *args, asker=self._asker)


def _bounded(meters: Sequence[Row]) -> Sequence[Row]:
    """As many of the first as have no more entries than a page may, one at least."""
    left = ENTRIES
    for place, meter in enumerate(meters):
        left -= meter["windows"]
        if left < 0 and place:
            return meters[:place]
    return meters


async def _recorded(page: Page, meters: Sequence[Row]) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """Entries and evaluations by meter."""
    names = [meter["meter_id"] for meter in meters]
    entries: dict[str, list[Row]] = {}
    evaluations: dict[str, list[Row]] = {}
    for row in await page.rows("entries_of_meters", names):
        entries.setdefault(row["meter_id"], []).append(row)
    for row in await page.rows("evaluations_of_meters", [f"meter:{name}" for name in names]):
        evaluations.setdefault(row["target_ref"].partition(":")[2], []).append(row)
    return entries, evaluations


def _compared(ref: str, own: Sequence[Row], there: Mapping[str, Sequence[tuple[int, str]]]) -> Iterator[Row]:
    """What Stripe has of one customer against what the ledger says it has."""
    known = {row["ledger_key"]: row for row in own}
    for key in sorted({*there, *(key for key, row in known.items() if row["state"] == "done")}):
        found, row = there.get(key, ()), known.get(key)
        wanted = [(row["amount_minor"], row["currency"])] if row is not None else []
        if list(found) != wanted:
            minor = sum(each for each, _ in found)
            yield _wrong(ref, "Stripe has another credit than the ledger, none, or several", key=key,
                         wanted_minor=row["amount_minor"] if row is not None else None, found_minor=minor)  # fmt: skip


def _wrong(target_ref: str, what: str, **more: Any) -> Row:
    return {"target_ref": target_ref, "what": what, "key": None, "wanted_minor": None, "found_minor": None, **more}
