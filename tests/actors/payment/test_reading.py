"""What an event says: every field that money hangs on is read strictly, whatever else Stripe sends or a stranger."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.payment.reading import READERS, read_event
from actors.payment.state import Said
from amends.values.errors import Rejected
from supervisors.simulation.events import dispute, event, intent, refund, session

NOW_US = 1_768_478_400_000_000


def read(body: Any) -> Said:
    return read_event(msgspec.json.encode(body), NOW_US)


def refused(body: Any) -> Said | Rejected:
    """What it says, or why it is refused; anything else that it raises is a failure."""
    try:
        return read(body)
    except Rejected as error:
        return error


def test_of_a_payment_what_was_received_and_whose_it_is() -> None:
    said = read(intent("evt_1", "pi_1", 5000, account="acme", customer="cus_1", currency="USD", received=2000))
    assert (said.what, said.payment_id, said.amount_minor, said.currency) == ("paid", "pi_1", 2000, "usd")
    assert (said.account_id, said.customer, said.event_id) == ("acme", "cus_1", "evt_1")
    assert read(intent("evt_1", "pi_1", 5000, received=0)).what == "ignored", "nothing was paid"


@pytest.mark.parametrize(("body", "what"), [
    (session("evt_1", "pi_1", 5, account="a"), "paid"),
    (session("evt_1", "pi_1", 5, kind="async_payment_succeeded"), "paid"),
    (session("evt_1", "pi_1", 5, kind="expired"), "ignored"),
    (session("evt_1", "pi_1", 5, status="unpaid"), "ignored"),
    (session("evt_1", "pi_1", 0, status="paid"), "ignored"),
    (session("evt_1", "pi_1", 5, mode="setup"), "ignored"),
    (refund("evt_1", "pi_1", "re_1", 5), "refunded"),
    (refund("evt_1", "pi_1", "re_1", 5, kind="updated", status="pending"), "ignored"),
    (refund("evt_1", "", "re_1", 5), "ignored"),
    (refund("evt_1", "pi_1", "re_1", 5, kind="failed", status="failed"), "refund_failed"),
    (dispute("evt_1", "pi_1", 5, "created"), "disputed"),
    (dispute("evt_1", "pi_1", 5, "funds_withdrawn"), "withdrawn"),
    (dispute("evt_1", "pi_1", 5, "funds_reinstated"), "reinstated"),
    (dispute("evt_1", "pi_1", 5, "closed"), "ignored"),
])  # fmt: skip
def test_what_each_kind_of_event_says(body: Any, what: str) -> None:
    if not body["data"]["object"].get("payment_intent"):
        body["data"]["object"]["payment_intent"] = None
    assert read(body).what == what


def test_a_dispute_is_booked_by_its_own_transaction_and_in_its_currency() -> None:
    body = dispute("evt_1", "pi_1", 900, "funds_reinstated")
    assert (read(body).ref, read(body).amount_minor) == ("txn_in_pi_1", 900)
    moved = body["data"]["object"]["balance_transactions"]
    moved[1] |= {"amount": 450}
    assert read(body).amount_minor == 450, "partly given back"
    moved[1] |= {"currency": "eur"}
    assert read(body).amount_minor == 900, "settled in another currency: the dispute's own amount"
    body["data"]["object"]["balance_transactions"] = ["txn_a", "txn_b"]
    assert read(body).ref == "txn_b"
    body["data"]["object"]["balance_transactions"] = []
    with pytest.raises(Rejected, match="balance_transactions"):
        read(body)
    body["data"]["object"]["balance_transaction"] = {"id": "txn_old", "object": "balance_transaction"}
    assert read(body).ref == "txn_old"


GONE, BACK = {"id": "txn_gone", "amount": -900, "currency": "usd"}, {"id": "txn_back", "amount": 900, "currency": "usd"}


@pytest.mark.parametrize("older", [None, "txn_older"])
@pytest.mark.parametrize(("kind", "told"), [
    ("funds_reinstated", [GONE]), ("funds_withdrawn", [BACK]), ("funds_withdrawn", [{**GONE, "amount": 0}]),
    ("funds_reinstated", ["txn_a", GONE]), ("funds_reinstated", [GONE, "txn_b"]),
])  # fmt: skip
def test_which_transaction_moved_is_not_guessed_by_its_place_where_amounts_are_told(
    kind: str, told: list[Any], older: str | None
) -> None:
    body = dispute("evt_1", "pi_1", 900, kind)
    body["data"]["object"] |= {"balance_transactions": told, "balance_transaction": older}
    with pytest.raises(Rejected, match="names no transaction to book"):
        read(body)


@pytest.mark.parametrize(("kind", "moved"), [("funds_withdrawn", "txn_a"), ("funds_reinstated", "txn_b")])
@pytest.mark.parametrize("told", [["txn_a", "txn_b"], [{"id": "txn_a"}, {"id": "txn_b"}], [{"id": "txn_a"}, "txn_b"]])
def test_of_transactions_that_are_ids_alone_the_first_went_and_the_last_came_back(
    kind: str, moved: str, told: list[Any]
) -> None:
    body = dispute("evt_1", "pi_1", 900, kind)
    body["data"]["object"] |= {"balance_transactions": told}
    assert (read(body).ref, read(body).amount_minor) == (moved, 900)


def test_references_may_be_expanded_objects() -> None:
    body = session("evt_1", "pi_1", 5)
    body["data"]["object"] |= {"payment_intent": {"id": "pi_1", "amount": 5}, "customer": {"id": "cus_1", "email": "x"}}
    assert (read(body).payment_id, read(body).customer) == ("pi_1", "cus_1")


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = (
    "id", "amount", "amount_received", "amount_total", "currency", "customer", "metadata", "payment_intent", "status",
    "mode", "payment_status", "balance_transactions", "reason",
)  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(kind=st.sampled_from(sorted(READERS)), body=st.dictionaries(st.sampled_from(FIELDS), json, max_size=8))
def test_whatever_an_object_holds_it_is_read_or_refused_by_name(kind: str, body: dict[str, Any]) -> None:
    said = refused(event("evt_1", kind, body))
    if isinstance(said, Rejected):
        assert said.code == "invalid_request"
        assert "no event of Stripe's" in str(said) or "`$" in str(said)
        return
    assert 0 <= said.amount_minor <= 2**53
    assert said.what == "ignored" or (said.payment_id and said.amount_minor)
    assert said.what in ("ignored", "disputed", "paid") or said.ref


@settings(deadline=None, max_examples=400)
@given(st.binary(max_size=200) | json.map(lambda value: repr(value).encode()))
def test_whatever_a_body_is_it_is_read_or_refused(body: bytes) -> None:
    with pytest.raises(Rejected):
        read_event(body, NOW_US)
