"""What Stripe says of payments, in any order and however often: the ledger is the same (R06)."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from actors.payment import kind
from amends.values.errors import Rejected
from supervisors.invariants import committed
from supervisors.simulation.checks import records_of
from supervisors.simulation.events import Event, dispute, event, intent, refund, session
from supervisors.simulation.world import Refused, Running, World


def run(tell: Callable[[Running], Awaitable[None]], seed: int = 1) -> World:
    """A world in which that was told, and in which everything holds."""
    world = World(seed)

    async def story(running: Running) -> None:
        await running.account("acme")
        await tell(running)
        await running.quiet()

    assert world.run(story)
    assert committed(records_of(world.database)) == []
    return world


def ledger(world: World) -> dict[str, int]:
    return {
        row["idempotency_key"]: row["amount_minor"] for row in world.database.tables.rows["ledger_entries"].values()
    }


def states(world: World) -> dict[str, str]:
    return {row["event_id"]: row["state"] for row in world.database.tables.rows["stripe_events"].values()}


def records(world: World) -> list[str]:
    return [row["target_ref"] for row in world.database.tables.rows["compensation"].values()]


def cases(world: World, state: str = "open") -> list[tuple[str, str]]:
    rows = world.database.tables.rows["ops_case"].values()
    return sorted((row["kind"], row["target_ref"]) for row in rows if row["state"] == state)


def deliver(*events: Event) -> Callable[[Running], Awaitable[None]]:
    async def tell(running: Running) -> None:
        for each in events:
            await running.deliver(each)

    return tell


def test_the_same_event_five_times_at_once_is_one_entry_and_four_records() -> None:
    async def tell(running: Running) -> None:
        answers = await asyncio.gather(
            *(running.deliver(intent("evt_1", "pi_1", 500, account="acme")) for _ in "12345")
        )
        assert sorted(answers) == [False, True, True, True, True]

    world = run(tell)
    assert ledger(world) == {"topup:pi_1": 500}
    assert records(world) == ["stripe_event:evt_1"] * 4
    assert states(world) == {"evt_1": "applied"}


def test_two_kinds_of_news_three_times_each_are_one_entry_and_five_records() -> None:
    said = [intent("evt_i", "pi_1", 500, account="acme"), session("evt_s", "pi_1", 500, account="acme")] * 3

    async def tell(running: Running) -> None:
        await asyncio.gather(*(running.deliver(each) for each in said))

    world = run(tell)
    assert ledger(world) == {"topup:pi_1": 500}
    assert len(records(world)) == 5
    assert sorted(states(world).values()) == ["applied", "duplicate"]


def test_what_was_received_is_credited_and_not_what_was_asked_for() -> None:
    assert ledger(run(deliver(intent("evt_1", "pi_1", 5000, account="acme", received=2000)))) == {"topup:pi_1": 2000}


STORY = (
    intent("evt_i", "pi_1", 5000, account="acme"),
    session("evt_s", "pi_1", 5000, account="acme"),
    refund("evt_r1", "pi_1", "re_1", 1000),
    refund("evt_r1u", "pi_1", "re_1", 1000, kind="updated"),
    refund("evt_r2", "pi_1", "re_2", 500),
    refund("evt_r2f", "pi_1", "re_2", 500, kind="failed", status="failed"),
    refund("evt_r3", "pi_1", "re_3", 70, status="pending"),
    refund("evt_r3f", "pi_1", "re_3", 70, kind="failed", status="failed"),
    dispute("evt_d", "pi_1", 2000, "created"),
    dispute("evt_dw", "pi_1", 2000, "funds_withdrawn"),
    dispute("evt_dr", "pi_1", 2000, "funds_reinstated"),
    event("evt_c", "charge.refunded", {"id": "ch_1", "payment_intent": "pi_1", "amount_refunded": 1500}),
)
BOOKED = {
    "topup:pi_1": 5000, "refund:re_1": 1000, "refund:re_2": 500, "refund_failed:re_2": 500,
    "refund:txn_out_pi_1": 2000, "topup:txn_in_pi_1": 2000,
}  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_any_order_and_number_of_deliveries_gives_the_same_ledger(seed: int) -> None:
    chance = random.Random(seed)
    said = [each for each in STORY for _ in range(chance.randint(1, 5))]
    chance.shuffle(said)

    async def tell(running: Running) -> None:
        for start in range(0, len(said), 20):
            await asyncio.gather(*(running.deliver(each) for each in said[start : start + 20]))

    world = run(tell)
    assert ledger(world) == BOOKED
    assert cases(world) == [("payment_dispute", "stripe_event:evt_d")]
    # Every delivery is either an event's first, or has its record; and so has each piece of news that came too late.
    late = Counter(states(world).values())["duplicate"]
    assert len(records(world)) == len(said) - len(STORY) + late
    assert world.balances() == {"acme": 5000 - 1000 - 500 + 500 - 2000 + 2000}


def test_a_payment_waits_for_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kind.PATIENCE_US == 72 * 3600 * 1_000_000
    monkeypatch.setattr(kind, "PATIENCE_US", 60_000_000)  # 72 hours of heartbeats are too many to play

    async def tell(running: Running) -> None:
        await running.deliver(refund("evt_r", "pi_1", "re_1", 100))
        await running.deliver(intent("evt_1", "pi_1", 500, customer="cus_9"))
        await running.deliver(intent("evt_2", "pi_2", 700, account="late"))
        assert states(running.world) == dict.fromkeys(("evt_r", "evt_1", "evt_2"), "deferred")
        assert ledger(running.world) == {}
        await asyncio.sleep(61)
        assert cases(running.world) == [
            ("deferred_payment", "stripe_event:evt_2"), ("deferred_payment", "stripe_event:evt_r"),
        ]  # fmt: skip
        await running.account("late", stripe_customer_id="cus_9")
        await running.until(lambda: len(ledger(running.world)) == 3)

    world = run(tell)
    assert ledger(world) == {"topup:pi_1": 500, "refund:re_1": 100, "topup:pi_2": 700}
    assert cases(world) == []
    assert set(states(world).values()) == {"applied"}


def test_a_customer_of_two_accounts_is_nobodys_and_another_event_of_the_payment_says_whose() -> None:
    async def tell(running: Running) -> None:
        await running.account("one", stripe_customer_id="cus_2")
        await running.account("two", stripe_customer_id="cus_2")
        await running.deliver(intent("evt_1", "pi_1", 500, customer="cus_2"))
        assert states(running.world) == {"evt_1": "deferred"}
        await running.deliver(session("evt_2", "pi_1", 500, account="two"))

    world = run(tell)
    assert world.balances() == {"two": 500}
    assert states(world) == {"evt_1": "duplicate", "evt_2": "applied"}


def test_a_payment_that_waits_is_found_by_the_next_runtime() -> None:
    world = World(1)

    async def before(running: Running) -> None:
        await running.deliver(intent("evt_1", "pi_1", 500, customer="cus_9"))

    async def after(running: Running) -> None:
        await running.account("acme", stripe_customer_id="cus_9")
        await running.until(lambda: ledger(world) == {"topup:pi_1": 500})

    assert world.run(before)
    assert world.run(after)


def test_another_currency_than_the_accounts_is_a_case_and_no_entry() -> None:
    world = run(deliver(
        intent("evt_1", "pi_1", 500, account="acme", currency="jpy"),
        refund("evt_2", "pi_1", "re_1", 100, currency="jpy"),
        intent("evt_1", "pi_1", 500, account="acme", currency="jpy"),
    ))  # fmt: skip
    assert ledger(world) == {}
    assert cases(world) == [("payment_currency", "stripe_event:evt_1")]
    assert states(world) == {"evt_1": "deferred", "evt_2": "deferred"}
    assert records(world) == ["stripe_event:evt_1"]


REFUSED = (
    intent("evt_i", "pi_1", 5000, account="acme", currency="jpy"),
    dispute("evt_d", "pi_1", 300, "created", currency="jpy"),
    refund("evt_r", "pi_1", "re_1", 1000, currency="jpy"),
    refund("evt_f", "pi_1", "re_1", 1000, kind="failed", status="failed", currency="jpy"),
    dispute("evt_w", "pi_1", 300, "funds_withdrawn", currency="jpy"),
    session("evt_s", "pi_1", 5000, account="late", currency="jpy"),
)
MOVED = {"topup:pi_1": 5000, "refund:re_1": 1000, "refund_failed:re_1": 1000, "refund:txn_out_pi_1": 300}


async def assign(running: Running, account: str, key: str = "assign") -> None:
    await running.ask("ops.payment.assign", key, payment_id="pi_1", account_id=account, reason="she wrote")


@pytest.mark.parametrize("seed", range(6))
def test_what_comes_to_a_refused_payment_is_booked_when_an_operator_names_its_account(seed: int) -> None:
    said = list(REFUSED)
    random.Random(seed).shuffle(said)

    async def tell(running: Running) -> None:
        await running.account("yen", currency="jpy")
        for each in said:
            await running.deliver(each)
        assert running.state("payment", "pi_1") == "refused"
        assert ledger(running.world) == {}
        assert cases(running.world) == [
            ("payment_currency", "stripe_event:evt_i"), ("payment_dispute", "stripe_event:evt_d"),
        ]  # fmt: skip
        with pytest.raises(Refused, match="the account in usd"):
            await assign(running, "acme", "wrong")
        await assign(running, "yen")

    world = run(tell)
    assert ledger(world) == MOVED
    assert world.balances() == {"yen": 4700}
    assert cases(world) == [("payment_dispute", "stripe_event:evt_d")]
    first = next(each["id"] for each in said if each["id"] in ("evt_r", "evt_f"))
    failed = "applied" if first == "evt_r" else "ignored"  # of a refund that was not booked it is only remembered
    applied = dict.fromkeys(("evt_i", "evt_d", "evt_r", "evt_w"), "applied")
    assert states(world) == {**applied, "evt_f": failed, "evt_s": "duplicate"}


def test_what_comes_to_a_refused_payment_is_booked_when_another_account_that_it_names_appears() -> None:
    async def tell(running: Running) -> None:
        await deliver(*REFUSED)(running)
        await running.account("late", currency="jpy")
        await running.until(lambda: len(ledger(running.world)) == len(MOVED))

    world = run(tell)
    assert (ledger(world), world.balances()) == (MOVED, {"late": 4700})


def test_what_names_the_account_that_cannot_have_it_contradicts_no_operator_later() -> None:
    async def tell(running: Running) -> None:
        await running.deliver(intent("evt_i", "pi_1", 500, account="late", currency="jpy"))
        await running.deliver(session("evt_s", "pi_1", 500, account="late", currency="jpy"))
        await running.account("late")
        await running.until(lambda: running.state("payment", "pi_1") == "refused")
        await running.account("yen", currency="jpy")
        await assign(running, "yen")

    world = run(tell)
    assert (world.balances(), cases(world)) == ({"yen": 500}, [])


def test_an_account_of_another_currency_than_the_refused_payment_changes_nothing() -> None:
    async def tell(running: Running) -> None:
        await deliver(*REFUSED)(running)
        await running.account("late", currency="eur")

    world = run(tell)
    assert ledger(world) == {}
    assert ("payment_currency", "stripe_event:evt_i") in cases(world)


@pytest.mark.parametrize("first", [
    intent("evt_i", "pi_1", 5000, account="nobody"), intent("evt_i", "pi_1", 5000, account="acme", currency="jpy"),
], ids=["of an unknown account", "of another currency"])  # fmt: skip
def test_news_of_a_payment_that_a_person_has_settled_in_another_way_is_ignored(
    first: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "PATIENCE_US", 1_000_000)
    news = (
        session("evt_s", "pi_1", 5000, account="acme"), session("evt_n", "pi_1", 5000, account="nobody"),
        session("evt_c", "pi_1", 5000, account="acme", currency="jpy"), refund("evt_r", "pi_1", "re_1", 1000),
        refund("evt_f", "pi_1", "re_1", 1000, kind="failed", status="failed"), dispute("evt_d", "pi_1", 300, "created"),
        dispute("evt_w", "pi_1", 300, "funds_withdrawn"), dispute("evt_b", "pi_1", 300, "funds_reinstated"),
    )  # fmt: skip

    async def tell(running: Running) -> None:
        rows = running.world.database.tables.rows["ops_case"]
        await deliver(first)(running)
        await running.until(lambda: bool(rows))
        (case,) = rows.values()
        await running.ask("ops.case.resolve", "resolve", case_id=case["case_id"], reason="paid back at Stripe")
        assert running.state("payment", "pi_1") == "ignored"
        await deliver(*news)(running)

    world = run(tell)
    assert (ledger(world), cases(world)) == ({}, [])
    assert states(world) == dict.fromkeys([each["id"] for each in (first, *news)], "ignored")


@pytest.mark.parametrize("body", [
    session("evt_1", "pi_1", 500, account="acme", mode="subscription"),
    session("evt_1", "pi_1", 500, account="acme", status="unpaid"),
    refund("evt_1", "pi_1", "re_1", 5, status="pending"),
    event("evt_1", "customer.created", {"id": "cus_1"}),
    event("evt_1", "charge.succeeded", {"id": "ch_1", "amount": 500, "payment_intent": "pi_1"}),
])  # fmt: skip
def test_what_no_row_names_is_stored_and_ignored(body: Event) -> None:
    world = run(deliver(body, body))
    assert ledger(world) == {}
    assert states(world) == {"evt_1": "ignored"}
    assert records(world) == ["stripe_event:evt_1"]


@pytest.mark.parametrize(("change", "said"), [
    ({"amount_received": -1}, "amount_received"), ({"amount_received": "5"}, "amount_received"),
    ({"amount_received": 5.5}, "amount_received"), ({"currency": None}, "currency"), ({"id": "p i"}, "id"),
])  # fmt: skip
def test_a_body_that_cannot_be_booked_is_refused_by_its_field_and_leaves_nothing(
    change: dict[str, Any], said: str
) -> None:
    body = intent("evt_1", "pi_1", 500, account="acme")
    body["data"]["object"].update(change)

    async def tell(running: Running) -> None:
        with pytest.raises(Rejected, match=said) as refused:
            await running.deliver(body)
        assert refused.value.code == "invalid_request"
        for raw in (
            b"",
            b"[]",
            b"{}",
            b'{"id": 5}',
            b"\xff",
            b"[" * 100_000,
            msgspec.json.encode({"id": "e", "type": "x"}),
        ):
            with pytest.raises(Rejected):
                await running.webhooks.take(raw, "", "simulated")

    world = run(tell)
    assert states(world) == {}


def test_an_account_is_told_each_time_that_its_balance_falls_below_zero() -> None:
    async def tell(running: Running) -> None:
        await running.deliver(intent("evt_1", "pi_1", 500, account="acme"))
        await running.deliver(dispute("evt_2", "pi_1", 700, "funds_withdrawn"))
        await running.quiet()
        await running.deliver(dispute("evt_3", "pi_1", 700, "funds_reinstated"))
        await running.quiet()
        await running.deliver(refund("evt_4", "pi_1", "re_1", 600))

    world = run(tell)
    told = [msgspec.json.decode(stored.payload) for stored in world.bus.streams["AMENDS_EVT"]]
    below = [each["data"]["balance_minor"] for each in told if each["schema"] == "account.balance_negative/1"]
    assert below == [-200, -100]


SIBLINGS = (
    intent("evt_i", "pi_1", 500, account="late"), session("evt_s", "pi_1", 500, account="late"),
    refund("evt_r", "pi_1", "re_1", 100), refund("evt_ru", "pi_1", "re_1", 100, kind="updated"),
    dispute("evt_dw", "pi_1", 200, "funds_withdrawn"),
)  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_however_much_waits_for_an_account_it_is_booked_once_when_that_is_there(seed: int) -> None:
    said = list(SIBLINGS)
    random.Random(seed).shuffle(said)

    async def tell(running: Running) -> None:
        for each in said:
            await running.deliver(each)
        await running.account("late")
        await running.until(lambda: len(ledger(running.world)) == 3)

    world = run(tell)
    assert ledger(world) == {"topup:pi_1": 500, "refund:re_1": 100, "refund:txn_out_pi_1": 200}
    assert cases(world) == []
    assert Counter(states(world).values()) == {"applied": 3, "duplicate": 2}
    spans = {row["step_id"] for row in world.database.tables.rows["step"].values() if row["name"] == "payments.webhook"}
    assert len(records(world)) == 2
    assert spans, "the records lead to the span of the turn that nobody asked for"


def test_news_that_contradicts_what_is_booked_is_a_case() -> None:
    async def tell(running: Running) -> None:
        await running.account("other")
        await running.deliver(intent("evt_i", "pi_1", 500, account="acme"))
        await running.deliver(session("evt_s", "pi_1", 650, account="acme"))
        await running.deliver(session("evt_o", "pi_1", 500, account="other"))
        await running.deliver(session("evt_same", "pi_1", 500, account="acme"))

    world = run(tell)
    assert ledger(world) == {"topup:pi_1": 500}
    assert cases(world) == [("billing_conflict", "stripe_event:evt_o"), ("billing_conflict", "stripe_event:evt_s")]


def test_a_payment_in_another_currency_is_credited_when_a_sibling_names_an_account_of_it() -> None:
    async def tell(running: Running) -> None:
        await running.account("yen", currency="jpy")
        await running.deliver(intent("evt_i", "pi_1", 500, account="acme", currency="jpy"))
        await running.deliver(session("evt_s", "pi_1", 500, account="yen", currency="jpy"))

    world = run(tell)
    assert world.balances() == {"yen": 500}
    assert cases(world) == []


def test_an_operator_says_whose_it_is_or_that_it_is_nobodys() -> None:
    async def tell(running: Running) -> None:
        await running.deliver(intent("evt_1", "pi_1", 500, customer="cus_x"))
        await running.ask("ops.payment.assign", "assign", payment_id="pi_1", account_id="acme", reason="she wrote")

    world = run(tell)
    assert ledger(world) == {"topup:pi_1": 500}
    assert states(world) == {"evt_1": "applied"}


def test_a_dispute_has_one_case_whatever_became_of_its_payment() -> None:
    said = (
        intent("evt_i", "pi_1", 500, account="acme", currency="jpy"), dispute("evt_1", "pi_1", 500, "created"),
        dispute("evt_2", "pi_1", 500, "created"),
    )  # fmt: skip
    world = run(deliver(*said))
    assert cases(world) == [("payment_currency", "stripe_event:evt_i"), ("payment_dispute", "stripe_event:evt_1")]
    assert states(world)["evt_2"] == "duplicate"


def test_a_refund_that_failed_gives_back_what_it_took() -> None:
    said = (
        intent("evt_i", "pi_1", 500, account="acme"), refund("evt_r", "pi_1", "re_1", 120),
        refund("evt_f", "pi_1", "re_1", 90, kind="failed", status="failed"),
    )  # fmt: skip
    assert ledger(run(deliver(*said)))["refund_failed:re_1"] == 120


@pytest.mark.parametrize(("currency", "minor"), [("isk", 5), ("ugx", 5), ("jpy", 500), ("kwd", 500), ("usd", 500)])
def test_amounts_are_in_the_currencys_own_unit(currency: str, minor: int) -> None:
    async def tell(running: Running) -> None:
        await running.account("own", currency=currency)
        await running.deliver(intent("evt_i", "pi_1", 500, account="own", currency=currency))

    assert run(tell).balances() == {"own": minor}
