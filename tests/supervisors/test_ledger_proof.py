"""What `ops.ledger.verify` asks of Stripe, how often, and what it says when Stripe cannot be asked."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from amends.ports.reading import ANYBODY, Asker
from amends.runtime.identity import Identity
from amends.values.errors import Rejected, TooSlow, Unavailable
from supervisors.api.ledger_proof import LedgerProof, LedgerVerify
from supervisors.api.sides import Sides
from supervisors.policy_file import built_in

OPERATOR = Identity("ann", role="viewer")
Row = dict[str, Any]


class Book:
    """A read side with accounts alone, each of which has a credit at Stripe if it has a customer there."""

    def __init__(self, *customers: str) -> None:
        self.accounts = [
            {"account_id": f"a{number:03}", "stripe_customer_id": customer or None, "balance_minor": 0, "entries": 0}
            for number, customer in enumerate(customers)
        ]
        self.read: list[str] = []
        self.sums: list[Row] = []

    async def rows(self, name: str, *args: Any, asker: Asker = ANYBODY) -> list[Row]:
        self.read.append(name)
        if name == "account_page":
            after, _, limit = args
            return [row for row in self.accounts if row["account_id"] > after][:limit]
        if name == "sums_of_accounts":
            return self.sums
        if name == "credits_of_customers":
            (customer,) = args[0]
            return [{"account_id": "a", "ledger_key": f"k-{customer}", "amount_minor": 5, "ledger_minor": 5,
                     "currency": "usd", "state": "done"}]  # fmt: skip
        return []

    async def get(self, entity: str, identifier: Any, asker: Asker = ANYBODY) -> Row:
        raise AssertionError("no row is asked for")

    async def page(
        self, entity: str, filters: Mapping[str, Any], limit: Any, cursor: Any, asker: Asker = ANYBODY
    ) -> Row:
        raise AssertionError("no page is asked for")

    async def columns(self, entity: str) -> Mapping[str, str]:
        raise AssertionError("no column is asked for")


class Stripe:
    """Has every credit, of one customer `twice`, unless an error is in its place."""

    def __init__(self, **errors: Exception) -> None:
        self.errors, self.asked, self.twice = errors, list[str](), ""

    async def mirrored(self, customer: str) -> Mapping[str, Sequence[tuple[int, str]]]:
        self.asked.append(customer)
        if customer in self.errors:
            raise self.errors[customer]
        return {f"k-{customer}": [(5, "usd")] * (2 if customer == self.twice else 1)}


async def pages(book: Book, stripe: Stripe | None) -> list[Row]:
    """All pages of accounts."""
    policy = built_in()
    proof = LedgerProof(
        Sides(book, book), lambda sha256: policy, lambda: 10**15, stripe.mirrored if stripe is not None else None
    )
    (endpoint,) = proof.endpoints()
    assert endpoint.answer is not None
    cursor, found = "accounts:", list[Row]()
    while cursor:
        found.append(await endpoint.answer(LedgerVerify(cursor=cursor), OPERATOR))
        cursor = found[-1]["cursor"]
    return found


CUSTOMERS = [f"cus_{number:02}" for number in range(25)]


async def test_a_page_asks_stripe_about_ten_customers_and_is_longer_where_nobody_is_asked() -> None:
    stripe = Stripe()
    found = await pages(Book(*CUSTOMERS), stripe)
    assert [page["checked"]["mirrored"] for page in found] == [10, 10, 5]
    assert [page["cursor"] for page in found] == ["accounts:a009", "accounts:a019", None]
    assert (stripe.asked, sum(page["wrong_count"] for page in found)) == (CUSTOMERS, 0)
    assert len(await pages(Book(*CUSTOMERS), None)) == 1
    assert len(await pages(Book(*[""] * 25), Stripe())) == 1


async def test_once_stripe_cannot_be_asked_it_is_asked_no_more_and_the_report_says_so() -> None:
    stripe, book = Stripe(cus_03=Unavailable("connection refused")), Book(*CUSTOMERS)
    found = await pages(book, stripe)
    assert stripe.asked == CUSTOMERS[:4], "neither for those that follow nor at a second look"
    assert [page["cursor"] for page in found] == ["balances:a009", None]
    assert [page["checked"]["accounts"] for page in found] == [10, 15]
    assert [page["checked"]["mirrored"] for page in found] == [3, 0]
    assert [page["checked"]["not_compared"] for page in found] == [7, 15]
    (wrong,) = [each for page in found for each in page["wrong"]]
    assert (wrong["target_ref"], wrong["detail"]) == ("customer:cus_03", "connection refused")
    assert book.read.count("account_page") == len(found), "that Stripe is away is no race"


async def test_what_else_is_wrong_is_looked_at_again_without_asking_stripe_that_is_away() -> None:
    stripe, book = Stripe(cus_03=Unavailable("connection refused")), Book(*CUSTOMERS)
    book.sums = [{"account_id": "a000", "balance_minor": 7, "entries": 1}]
    stripe.twice = "cus_01"
    first, second = await pages(book, stripe)
    assert {each["target_ref"] for each in first["wrong"]} == {"account:a000", "account:a", "customer:cus_03"}
    assert (first["cursor"], second["checked"]["accounts"]) == ("balances:a009", 15)
    assert (first["checked"]["mirrored"], first["checked"]["not_compared"]) == (3, 7)
    assert stripe.asked == CUSTOMERS[:4]


@pytest.mark.parametrize("error", [Rejected("not_found", "No such customer"), TooSlow("more than may be read")])
async def test_what_stripe_does_not_tell_of_one_customer_it_may_tell_of_others(error: Exception) -> None:
    stripe, book = Stripe(cus_03=error), Book(*CUSTOMERS)
    found = await pages(book, stripe)
    assert stripe.asked == CUSTOMERS
    assert [page["checked"]["not_compared"] for page in found] == [1, 0, 0]
    assert [each["target_ref"] for page in found for each in page["wrong"]] == ["customer:cus_03"]
