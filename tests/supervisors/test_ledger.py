"""How an entry of the ledger is explained, and to whom."""

from collections.abc import Mapping
from typing import Any

import pytest

from amends.ports.reading import ANYBODY, Asker
from amends.runtime.identity import Identity
from amends.values.errors import Rejected
from supervisors.api.ledger import NO_EXPONENTS, LedgerExplain, LedgerQuestions
from supervisors.api.sides import Sides
from supervisors.policy_file import BUILT_IN, built_in

POLICY = built_in()
START_US = 1_768_478_400_000_000
STOP_US = START_US + 2_730_500_000
OWN, OTHER = Identity("one", ("acme",)), Identity("two", ("beta",))
OPERATOR = Identity("ann", role="operator")
METER: dict[str, Any] = {
    "meter_id": "m", "allocation_id": "alloc_1", "account_id": "acme", "rate_uminor_per_hour": 249_000_000,
    "policy_version": POLICY.version, "policy_sha256": POLICY.sha256, "started_us": START_US,
}  # fmt: skip
EVALUATED: dict[str, Any] = {
    "cause": "force_release", "reason": "operator_request", "rule_id": "force_default", "stop_us": STOP_US,
    "posted_through_us": START_US, "prior_credits": 0, "overrun": 0, "debited": 188, "policy_credit": 0,
}  # fmt: skip


class Book:
    """A read side with one meter and one entry."""

    def __init__(self, key: str, amount: int, **other: Any) -> None:
        self.entry = {
            "idempotency_key": key, "amount_minor": amount, "account_id": "acme", "meter_id": "m", "currency": "usd",
        } | other  # fmt: skip
        self.payments: list[dict[str, Any]] = []
        self.documents = [{"body": {"toml": BUILT_IN.read_text()}}]
        self.evaluations = [
            {"audit_id": "aud_1", "at_us": 5, "trace_id": "t1", "recovery_trace_id": None, "details": EVALUATED}
        ]

    async def rows(self, name: str, *args: Any, asker: Asker = ANYBODY) -> list[dict[str, Any]]:
        if name == "evaluations":
            assert args == ("meter:m",)
            return self.evaluations
        if name == "payment_of_entry":
            assert args == ("acme", self.entry["idempotency_key"])
            return self.payments
        assert (name, args) == ("policy_document", (POLICY.sha256,))
        return self.documents

    async def get(self, entity: str, identifier: Any, asker: Asker = ANYBODY) -> dict[str, Any]:
        found: dict[tuple[str, Any], dict[str, Any]] = {
            ("meter", "m"): METER, ("allocation", "alloc_1"): {"trace_id": "t0"},
        }  # fmt: skip
        return found[entity, identifier]

    async def page(
        self, entity: str, filters: Mapping[str, Any], limit: Any, cursor: Any, asker: Asker = ANYBODY
    ) -> dict[str, Any]:
        if entity == "audit_log":
            assert filters == {"target_ref": "stripe_event:evt_1"}
            return {"items": [{"trace_id": "t5"}], "cursor": None}
        assert (entity, set(filters)) == ("ledger_entry", {"idempotency_key"})
        mine = filters["idempotency_key"] == self.entry["idempotency_key"]
        return {"items": [self.entry] if mine else [], "cursor": None}

    async def columns(self, entity: str) -> Mapping[str, str]:
        raise AssertionError("no column is asked for")


async def ask(
    book: Book, key: str | None = None, identity: Identity = OWN, exponents: Mapping[str, int] = NO_EXPONENTS
) -> dict[str, Any]:
    (endpoint,) = LedgerQuestions(Sides(book, book), exponents).endpoints()
    assert (endpoint.subject, endpoint.role) == ("qry.ledger_entry.explain", "reader")
    assert endpoint.answer is not None
    return await endpoint.answer(LedgerExplain(idempotency_key=key or str(book.entry["idempotency_key"])), identity)


WINDOW = f"debit:m:{START_US}"


async def test_an_entry_of_a_stop_has_its_evaluation_rule_policy_and_traces() -> None:
    found = await ask(Book(WINDOW, 188))
    assert (found["reckoned_minor"], found["agrees"], found["problem"]) == (188, True, "")
    assert found["evaluation"] == {"audit_id": "aud_1", "at_us": 5, **EVALUATED}
    assert found["rule"]["id"] == "force_default"
    assert (found["policy"]["version"], found["policy"]["sha256"]) == (POLICY.version, POLICY.sha256)
    assert found["traces"] == {"allocation": "t0", "evaluation": "t1"}
    assert found["formula"][-1] == f"C({STOP_US}) − C({START_US}) = 188"


async def test_an_entry_is_shown_by_the_digits_of_the_policy_that_it_was_charged_under() -> None:
    meant = await ask(Book(WINDOW, 188), exponents={"usd": 0})
    assert (meant["minor_unit_exponent"], POLICY.minor_unit_exponent) == (2, 2)
    book = Book(WINDOW, 188)
    book.documents = []
    assert (await ask(book, exponents={"usd": 0}))["minor_unit_exponent"] is None, "nobody knows which it was"
    paid = await ask(Book("topup:pi_1", 5000, meter_id=None), exponents={"usd": 3})
    assert paid["minor_unit_exponent"] == 3


async def test_an_entry_that_has_another_amount_is_told() -> None:
    found = await ask(Book(WINDOW, 187))
    assert (found["reckoned_minor"], found["agrees"]) == (188, False)


async def test_a_window_that_was_posted_while_the_meter_ran_needs_no_evaluation() -> None:
    book = Book(WINDOW, 249)
    book.evaluations = []
    found = await ask(book)
    assert (found["agrees"], found["evaluation"], found["rule"]) == (True, None, None)
    assert found["traces"] == {"allocation": "t0"}


@pytest.mark.parametrize("identity", [OWN, OPERATOR])
async def test_ones_own_and_operators_are_told(identity: Identity) -> None:
    assert (await ask(Book(WINDOW, 188), identity=identity))["agrees"]


async def test_what_is_somebody_elses_is_not_there() -> None:
    for key, identity in ((WINDOW, OTHER), ("debit:m:1", OWN), ("debit:m:1", OTHER)):
        with pytest.raises(Rejected, match=f"there is no ledger entry '{key}'") as refused:
            await ask(Book(WINDOW, 188), key, identity)
        assert refused.value.code == "not_found"


@pytest.mark.parametrize(("booked", "agrees"), [(5000, True), (4999, False)])
async def test_a_payment_is_explained_by_what_stripe_has_said(booked: int, agrees: bool) -> None:
    book = Book("topup:pi_1", 5000, meter_id=None)
    book.payments = [{
        "payment_id": "pi_1", "amount_minor": 5000, "currency": "usd", "booked": {"topup:pi_1": booked},
        "events": [{"event_id": "evt_1", "type": "payment_intent.succeeded", "state": "applied", "received_us": 1}],
    }]  # fmt: skip
    found = await ask(book)
    assert (found["meter"], found["policy"], found["problem"]) == (None, None, "")
    assert (found["agrees"], found["reckoned_minor"], found["traces"]) == (agrees, booked, {"evt_1": "t5"})
    assert found["payment"]["payment_id"] == "pi_1"


async def test_an_entry_that_no_payment_has_booked_is_not_explained() -> None:
    found = await ask(Book("topup:pi_1", 5000, meter_id=None))
    assert (found["agrees"], found["problem"]) == (None, "no payment has booked it")


async def test_what_is_not_recorded_is_told() -> None:
    book = Book("debit:m:minimum", 3)
    book.evaluations = []
    found = await ask(book)
    assert (found["agrees"], found["problem"]) == (None, "no evaluation of the meter's end is recorded")
    assert found["meter"] == METER


@pytest.mark.parametrize(
    ("documents", "why"),
    [([], "is not stored"), ([{"body": {"toml": 'currency = "usd"\n'}}], "`policy_version` is missing")],
)
async def test_a_policy_that_cannot_be_read_is_told_by_its_hash(documents: list[dict[str, Any]], why: str) -> None:
    book = Book(WINDOW, 188)
    book.documents = documents
    found = await ask(book)
    assert found["policy"] == {"version": POLICY.version, "sha256": POLICY.sha256}
    assert why in found["problem"]
