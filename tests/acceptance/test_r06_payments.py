"""R06 from outside: Stripe's webhooks over HTTP and over NATS; every payment is credited exactly once."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from typing import Any

import pytest

from supervisors.simulation.events import Event, dispute, intent, refund, session
from tests.acceptance.console import settle
from tests.acceptance.records import runs
from tests.acceptance.stripe import CONFIG as STRIPE
from tests.acceptance.stripe import PREVIOUS, WAYS, deliver, post, signed
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONFIG = STRIPE
_names = itertools.count(1)


def new(prefix: str) -> str:
    """An id that Stripe has not given yet."""
    return f"{prefix}_{next(_names):06}"


async def entries(world: World, *keys: str) -> dict[str, int]:
    query = "SELECT idempotency_key, amount_minor FROM public_v1.ledger_entry WHERE idempotency_key = ANY ($1)"
    return {row["idempotency_key"]: row["amount_minor"] for row in await world.rows(query, list(keys))}


async def event_state(world: World, event_id: str) -> str | None:
    rows = await world.rows("SELECT state FROM public_v1.stripe_event WHERE event_id = $1", event_id)
    return rows[0]["state"] if rows else None


async def cancelled(world: World, event_id: str) -> int:
    query = """SELECT count(*) FROM public_v1.compensation WHERE target_ref = $1 AND matrix_row = 'R06'
               AND compensation_type = 'cancel' AND compensated_action_type = 'external_call' AND outcome = 'success'"""
    count: int = await world.sql.fetchval(query, f"stripe_event:{event_id}")
    return count


async def open_cases(world: World, kind: str) -> list[str]:
    query = "SELECT target_ref FROM public_v1.ops_case WHERE kind = $1 AND state = 'open' ORDER BY opened_us"
    return [row["target_ref"] for row in await world.rows(query, kind)]


@pytest.mark.parametrize("way", WAYS)
async def test_the_same_event_five_times_at_once_is_one_entry_and_four_records(world: World, way: str) -> None:
    event_id, payment = new("evt"), new("pi")
    said = intent(event_id, payment, 5000, account="acme", received=2000)
    answers = await asyncio.gather(*(deliver(world, way, said) for _ in range(5)))
    assert sorted(answers) == [False, True, True, True, True]
    assert await entries(world, f"topup:{payment}") == {f"topup:{payment}": 2000}
    assert await cancelled(world, event_id) == 4
    found = await runs(world, f"payment:{payment}", "R06")
    assert [run.outcome for run in found] == ["recovered"] * 4
    assert [run.failures[0]["failure_type"] for run in found] == ["violation"] * 4
    assert [run.row["trigger_type"] for run in found] == ["failure"] * 4
    assert await event_state(world, event_id) == "applied"


async def test_both_ways_and_both_kinds_of_news_are_one_top_up(world: World) -> None:
    payment = new("pi")
    said = [intent(new("evt"), payment, 700, account="acme"), session(new("evt"), payment, 700, account="acme")]
    await asyncio.gather(*(deliver(world, way, each) for each in said for way in ("http", "nats", "http")))
    assert await entries(world, f"topup:{payment}") == {f"topup:{payment}": 700}
    assert sum([await cancelled(world, each["id"]) for each in said]) == 5


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_not_signed_of_late_with_a_known_secret_is_refused_and_nothing_else(
    world: World, way: str
) -> None:
    said = intent(new("evt"), new("pi"), 500, account="acme")
    body, now = json.dumps(said).encode(), time.time()
    before = await world.counts()
    bad = {
        "none": "", "another secret": signed(body, "whsec_other"), "too old": signed(body, at_s=now - 400),
        "of the future": signed(body, at_s=now + 400), "another body": signed(body + b" "), "nonsense": "t=x,v1=",
    }  # fmt: skip
    for why, header in bad.items():
        status, answer = await WAYS[way](world, body, header)
        assert (status, answer["error"]["code"]) == (400, "bad_signature"), why
    assert await world.counts() == before | {"audit_log": (await world.counts())["audit_log"]}
    query = "SELECT count(*) FROM public_v1.audit_log WHERE action = 'payments.webhook.rejected' AND actor = $1"

    async def audited() -> bool:
        return bool(await world.sql.fetchval(query, way))

    await until(audited, "the refusal in the audit")
    assert not await deliver(world, way, said, PREVIOUS), "the previous secret still counts"


async def test_a_body_over_1_mib_is_413_and_a_signed_body_that_is_no_event_is_400(world: World) -> None:
    body = b" " * (1 << 20) + b"{}"
    status, _ = await post(world, body, signed(body))
    assert status == 413
    status, answer = await post(world, b"{}", f"{signed(b'{}')},v1={'0' * 4096}")
    assert (status, answer["error"]["code"]) == (400, "bad_signature")
    assert "more than 4096 characters" in answer["error"]["message"]
    for body in (b"{}", b"not json", b'{"id": "evt_x", "type": "payment_intent.succeeded", "data": {"object": {}}}'):
        for way in WAYS.values():
            status, answer = await way(world, body, signed(body))
            assert (status, answer["error"]["code"]) == (400, "invalid_request"), body


async def test_a_payment_of_an_unknown_account_waits_for_it(world: World) -> None:
    account, customer, payments = world.new_name("late"), new("cus"), [new("pi"), new("pi")]
    said = [
        refund(new("evt"), payments[0], new("re"), 100), intent(new("evt"), payments[0], 500, customer=customer),
        intent(new("evt"), payments[1], 700, account=account),
    ]  # fmt: skip
    for each in said:
        assert not await deliver(world, "http", each)
    assert [await event_state(world, each["id"]) for each in said] == ["deferred"] * 3
    assert await deliver(world, "nats", said[1]), "it is known, though it waits"
    await world.ok("cmd.account.create", {"account_id": account, "currency": "usd", "stripe_customer_id": customer})

    async def booked() -> bool:
        found = await world.ok("qry.account.statement", {"account_id": account})
        return bool(found["balance_minor"] == 500 - 100 + 700)

    await until(booked, "what waited is booked")
    assert [await event_state(world, each["id"]) for each in said] == ["applied"] * 3

    async def told() -> bool:
        found = [each["subject"].rpartition(".")[2] for each in await world.stored("AMENDS_EVT")
                 if f".account.{account}." in each["subject"]]  # fmt: skip
        return sorted(found) == ["ledger_posted"] * 3 + ["open"]

    await until(told, "each booking has its event")


async def test_a_payment_in_another_currency_is_a_case_and_no_entry(world: World) -> None:
    event_id, payment = new("evt"), new("pi")
    await deliver(world, "http", intent(event_id, payment, 5000, account="acme", currency="jpy"))
    assert await entries(world, f"topup:{payment}") == {}
    assert f"stripe_event:{event_id}" in await open_cases(world, "payment_currency")
    (case,) = await world.rows("SELECT * FROM public_v1.ops_case WHERE target_ref = $1", f"stripe_event:{event_id}")
    assert (case["evidence"]["currency"], case["evidence"]["account_currency"]) == ("jpy", "usd")
    await settle(world, "payment_currency", f"stripe_event:{event_id}", "ops.case.resolve")
    assert f"stripe_event:{event_id}" not in await open_cases(world, "payment_currency")


async def test_what_comes_to_a_refused_payment_waits_until_an_operator_names_its_account(world: World) -> None:
    event_id, payment, back, yen = new("evt"), new("pi"), new("re"), world.new_name("yen")
    await world.ok("cmd.account.create", {"account_id": yen, "currency": "jpy"})
    await deliver(world, "http", intent(event_id, payment, 5000, account="acme", currency="jpy"))
    returned = refund(new("evt"), payment, back, 700, currency="jpy")
    await deliver(world, "http", returned)
    assert [await event_state(world, each) for each in (event_id, returned["id"])] == ["deferred", "deferred"]
    assert await world.rows("SELECT * FROM public_v1.invariant_violation") == []
    await settle(world, "payment_currency", f"stripe_event:{event_id}", "ops.payment.assign", account_id=yen)
    keys = (f"topup:{payment}", f"refund:{back}")
    assert await entries(world, *keys) == dict(zip(keys, (5000, 700), strict=True))
    assert f"stripe_event:{event_id}" not in await open_cases(world, "payment_currency")


@pytest.mark.parametrize("won", [True, False])
async def test_a_dispute_takes_and_may_give_back(world: World, won: bool) -> None:
    payment, opened = new("pi"), new("evt")
    said = [
        intent(new("evt"), payment, 900, account="acme"), dispute(opened, payment, 900, "created"),
        dispute(new("evt"), payment, 900, "funds_withdrawn"),
        *([dispute(new("evt"), payment, 900, "funds_reinstated")] if won else []),
    ]  # fmt: skip
    for each in said * 2:
        await deliver(world, "http", each)
    keys = (f"topup:{payment}", f"refund:txn_out_{payment}", f"topup:txn_in_{payment}")
    assert await entries(world, *keys) == dict.fromkeys(keys if won else keys[:2], 900)
    (case,) = await world.rows("SELECT * FROM public_v1.ops_case WHERE target_ref = $1", f"stripe_event:{opened}")
    assert (case["kind"], case["state"]) == ("payment_dispute", "open")
    assert (case["evidence"]["dispute"], case["evidence"]["payment"]) == (f"dp_{payment}", payment)
    await settle(world, "payment_dispute", f"stripe_event:{opened}", "ops.case.resolve")
    assert f"stripe_event:{opened}" not in await open_cases(world, "payment_dispute")


async def test_an_account_that_falls_below_zero_says_so(world: World) -> None:
    account, payment = world.new_name("poor"), new("pi")
    await world.ok("cmd.account.create", {"account_id": account, "currency": "usd"})
    await deliver(world, "http", intent(new("evt"), payment, 100, account=account))
    await deliver(world, "http", refund(new("evt"), payment, new("re"), 130))

    async def told() -> Any:
        return [
            each for each in await world.stored("AMENDS_EVT") if each["subject"].endswith(f"{account}.balance_negative")
        ]

    ((event,)) = await until(told, "the event")
    assert event["body"]["data"] == {"account_id": account, "balance_minor": -30, "currency": "usd"}


@pytest.mark.slow
async def test_a_thousand_webhooks_shuffled_and_repeated_credit_each_payment_once(world: World) -> None:
    account, chance = world.new_name("many"), random.Random(5)
    await world.ok("cmd.account.create", {"account_id": account, "currency": "usd"})
    said: list[Event] = []
    wanted: dict[str, int] = {}
    while len(said) < 1000:
        payment, again, amount = new("pi"), new("re"), chance.randint(100, 90_000)
        said += [intent(new("evt"), payment, amount, account=account), session(new("evt"), payment, amount)]
        wanted[f"topup:{payment}"] = amount
        if chance.random() < 0.5:
            back = chance.randint(1, amount)
            said += [refund(new("evt"), payment, again, back), refund(new("evt"), payment, again, back, kind="updated")]
            wanted[f"refund:{again}"] = back
    deliveries = [each for each in said for _ in range(chance.randint(1, 5))]
    chance.shuffle(deliveries)
    waiting = iter(deliveries)

    async def sender() -> None:
        for each in waiting:
            await deliver(world, chance.choice(("http", "nats")), each)

    await asyncio.gather(*(sender() for _ in range(20)))
    assert await entries(world, *wanted) == wanted
    found = await world.rows("SELECT * FROM public_v1.ledger_entry WHERE account_id = $1", account)
    assert len(found) == len(wanted)
    balance = sum(amount if key.startswith("topup") else -amount for key, amount in wanted.items())
    assert (await world.ok("qry.account.statement", {"account_id": account}))["balance_minor"] == balance
    states = Counter([await event_state(world, each["id"]) for each in said])
    late = states["duplicate"]
    assert states == {"applied": len(wanted), "duplicate": len(said) - len(wanted)}
    assert sum([await cancelled(world, each["id"]) for each in said]) == len(deliveries) - len(said) + late
