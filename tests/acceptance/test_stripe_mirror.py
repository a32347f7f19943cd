"""Credits mirrored to a Stripe (the simulator, through the real client library), and the ledger proved against it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from actors.account.mirror import GRACE_US
from adapters.simulated.stripe_book import API_KEY
from adapters.simulated.stripe_credits import create_customer
from adapters.simulated.stripe_faults import FaultKind, StripeFault
from adapters.simulated.stripe_server import StripeSimulator
from supervisors.policy_file import BUILT_IN
from supervisors.simulation.events import intent, refund
from tests.acceptance.console import settle
from tests.acceptance.machine import Machine
from tests.acceptance.records import all_is_well, meters, runs
from tests.acceptance.stripe import SECRET, all_wrong, deliver
from tests.acceptance.world import RATE, World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
WINDOW_US = 1_000_000
DEAR = RATE * 20_000
CREDITS = "POST /v1/customers"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stripe() -> AsyncIterator[StripeSimulator]:
    simulator = StripeSimulator()
    await simulator.start()
    yield simulator
    await simulator.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(module_dir: Path, stripe: StripeSimulator) -> AsyncIterator[World]:
    config = (
        f'[stripe]\napi_key = "{API_KEY}"\napi_base = "{stripe.url}"\nmirror_credits = true\n'
        f'webhook_secrets = ["{SECRET}"]\n'
    )
    async with World(module_dir, config, WINDOW_US).running() as world:
        yield world
        await all_is_well(world)
    assert "Traceback" not in world.log_text(), world.log_text()[-5000:]
    assert API_KEY not in world.log_text()


async def refunded(world: World, stripe: StripeSimulator, machine: Machine, customer: str = "") -> tuple[str, str, str]:
    """A rental that an operator has ended with a refund: account, customer, ledger key of the credit."""
    account, customer, allocation_id = await forced(world, stripe, machine, customer)
    return account, customer, await key_of(world, allocation_id)


async def forced(world: World, stripe: StripeSimulator, machine: Machine, customer: str = "") -> tuple[str, str, str]:
    """A rental that an operator ends with a refund: account, customer, allocation."""
    account = world.new_name("rich")
    customer = customer or create_customer(stripe.book, {}, ())["id"]
    await world.ok("cmd.account.create", {"account_id": account, "currency": "usd", "stripe_customer_id": customer})
    allocation_id = await world.rent(account_id=account, node_id=machine.node_id, rate_uminor_per_hour=DEAR)
    await asyncio.sleep(1.2)
    about = {"allocation_id": allocation_id, "reason_code": "platform_fault", "reason": "the rack is needed"}
    await world.ok("ops.allocation.force_release", about)
    return account, customer, allocation_id


async def key_of(world: World, allocation_id: str) -> str:
    """The ledger key of its credit, when its node is clean."""
    await world.cleaned(allocation_id)
    (meter,) = await meters(world, allocation_id)
    return f"credit:{meter['meter_id']}:force_platform_fault"


def asked(stripe: StripeSimulator, customer: str, key: str) -> list[tuple[str, int]]:
    """What was asked of the customer's transactions: method, the key's generation, and status, 0 for none."""
    path = f"/v1/customers/{customer}/balance_transactions"
    return [
        (f"POST{seen.key.removeprefix(key)}" if seen.method == "POST" else seen.method, seen.status)
        for seen in stripe.book.seen if seen.path == path
    ]  # fmt: skip


def at_stripe(stripe: StripeSimulator, key: str) -> list[int]:
    found = stripe.book.of("customer_balance_transaction").values()
    return [each["amount"] for each in found if each["metadata"].get("ledger_key") == key]


async def mirrored(world: World, key: str, state: str = "done") -> None:
    async def there() -> bool:
        rows = await world.rows("SELECT state FROM mirrored_credits WHERE ledger_key = $1", key)
        return [row["state"] for row in rows] == [state]

    await until(there, f"{key} is {state}")


async def amount(world: World, key: str) -> int:
    found: int = await world.sql.fetchval("SELECT amount_minor FROM ledger_entries WHERE idempotency_key = $1", key)
    return found


async def verified(world: World, account: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await world.amends("ledger", "verify", "--account", account, "--json"))
    return found


# What goes wrong with the first call → what is asked until the credit is there, and how the run of it ends.
ON_THE_WAY: dict[FaultKind | None, tuple[list[tuple[str, int]], list[str]]] = {
    None: ([("POST", 200)], []),
    "rate_limit": ([("POST", 429), ("POST", 200)], []),  # it stands before the endpoint: nothing can have been done
    "in_flight": ([("POST", 409), ("GET", 200), ("POST", 200)], []),
    "cut_before": ([("POST", 0), ("GET", 200), ("POST", 200)], []),
    "cut": ([("POST", 0), ("GET", 200)], []),  # it was done
    "done_stored_error": ([("POST", 500), ("GET", 200)], []),
    "stored_error": (  # comes again under the same key, so that a try is spent and another key is taken
        [("POST", 500), ("GET", 200), ("POST", 500), ("GET", 200), ("POST#1", 200)], ["recovered"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", ON_THE_WAY)
async def test_a_credit_comes_to_stripe_once_whatever_happens_on_the_way(
    world: World, stripe: StripeSimulator, machine: Machine, fault: FaultKind | None
) -> None:
    if fault is not None:
        stripe.book.faults.add(StripeFault(kind=fault, match=CREDITS))
    account, customer, key = await refunded(world, stripe, machine)
    await mirrored(world, key)
    requests, outcomes = ON_THE_WAY[fault]
    assert asked(stripe, customer, key) == requests
    assert at_stripe(stripe, key) == [-await amount(world, key)]
    found = await verified(world, account)
    assert found["valid"], found
    assert found["checked"]["mirrored"] == 1
    assert [run.outcome for run in await runs(world, f"account:{account}", "R06")] == outcomes


async def test_while_stripe_cannot_be_reached_no_try_is_spent(
    world: World, stripe: StripeSimulator, machine: Machine
) -> None:
    await stripe.refuse()
    account, _, key = await refunded(world, stripe, machine)
    await asyncio.sleep(1.0)
    assert await runs(world, f"account:{account}") == []
    await stripe.accept()
    await mirrored(world, key)
    assert len(at_stripe(stripe, key)) == 1
    assert await runs(world, f"account:{account}") == []


async def test_what_stripe_refuses_is_a_case_and_is_sent_again_by_an_operators_word(
    world: World, stripe: StripeSimulator, machine: Machine
) -> None:
    account, customer, key = await refunded(world, stripe, machine, "cus_nobody")
    await mirrored(world, key, "failed")
    (run,) = await runs(world, f"account:{account}", "R06")
    assert (run.outcome, run.kinds()[-1]) == ("failed", "escalate·success")
    query = "SELECT * FROM public_v1.ops_case WHERE kind = 'stripe_mirror_failed' AND target_ref = $1"
    case = await world.one(query, f"account:{account}")
    assert (case["state"], case["evidence"]["code"], case["evidence"]["ledger_key"]) == ("open", "stripe_refused", key)
    said = {each["what"]: each["detail"] for each in await all_wrong(world, account)}
    assert "a credit never came to Stripe" in said
    assert "No such customer" in said["what Stripe has of it is not known"]
    # when somebody has made the customer, and an operator says so
    made = create_customer(stripe.book, {}, ())
    customers = stripe.book.of("customer")
    customers[customer] = {**customers.pop(made["id"]), "id": customer}
    await settle(world, "stripe_mirror_failed", f"account:{account}", "ops.account.retry_mirror")
    await mirrored(world, key)
    assert len(at_stripe(stripe, key)) == 1
    assert (await world.one(query, f"account:{account}"))["state"] == "resolved"
    assert [run.outcome for run in await runs(world, f"account:{account}", "R06")] == ["failed", "recovered"]
    await world.refused("ops.account.retry_mirror", {"account_id": account, "reason": "again"}, "illegal_transition")


async def test_a_kill_between_intent_and_reply_makes_no_second_credit(
    world: World, stripe: StripeSimulator, machine: Machine
) -> None:
    stripe.book.faults.add(StripeFault(kind="delay", seconds=3.0, match=CREDITS))
    before = set(stripe.book.keys.kept)
    _, customer, allocation_id = await forced(world, stripe, machine)

    async def under_way() -> bool:
        return bool(stripe.book.keys.kept.keys() - before)

    await until(under_way, "Stripe has heard of the credit")
    world.kill()
    (sent,) = stripe.book.keys.kept.keys() - before
    assert (stripe.book.keys.kept[sent].reply, asked(stripe, customer, sent)) == (None, []), "it has answered already"
    await world.restart()
    key = await key_of(world, allocation_id)
    assert key == sent
    await mirrored(world, key)
    assert len(at_stripe(stripe, key)) == 1
    assert ("POST", 200) in asked(stripe, customer, key)


async def test_a_credit_that_was_never_sent_is_sent_by_an_operators_word_unless_it_is_only_on_its_way(
    world: World, stripe: StripeSimulator, machine: Machine
) -> None:
    account, _, key = await refunded(world, stripe, machine)
    await mirrored(world, key)
    # given that nobody knows that it was sent
    other = await world.superuser()
    await other.execute("SET session_replication_role = replica")
    await other.execute("DELETE FROM mirrored_credits WHERE ledger_key = $1", key)
    world.planted.add(("mirrored_credits", key))
    again = {"account_id": account, "reason": "the mirror is on now"}
    assert "never" not in str(await all_wrong(world, account))
    await world.refused("ops.account.retry_mirror", again, "illegal_transition")
    # when it was posted longer ago
    earlier = "UPDATE ledger_entries SET created_us = created_us - $2::bigint WHERE idempotency_key = $1"
    await other.execute(earlier, key, GRACE_US)
    assert "a credit was never sent to Stripe" in [each["what"] for each in await all_wrong(world, account)]
    await world.ok("ops.account.retry_mirror", again)
    await mirrored(world, key)
    assert len(at_stripe(stripe, key)) == 1
    await other.execute(earlier, key, -GRACE_US)  # as it was
    await other.close()


async def test_the_ledger_is_proved_and_what_was_changed_by_hand_is_named(
    world: World, stripe: StripeSimulator, machine: Machine
) -> None:
    account, _, key = await refunded(world, stripe, machine)
    await mirrored(world, key)
    payment = f"pi_{account.replace('-', '')}"
    await deliver(world, "http", intent(f"evt_{payment}", payment, 900, account=account))
    await deliver(world, "http", refund(f"evt_r{payment}", payment, f"re_{payment}", 100))
    found = await verified(world, account)
    assert found["valid"], found
    assert (found["checked"]["meters"], found["checked"]["payments"], found["checked"]["accounts"]) == (1, 1, 1)
    # when somebody has had a hand in it
    other = await world.superuser()
    await other.execute("SET session_replication_role = replica")
    await other.execute("CREATE TEMP TABLE saved AS SELECT * FROM ledger_entries WHERE account_id = $1", account)
    await other.execute("UPDATE ledger_entries SET amount_minor = amount_minor + 1 WHERE idempotency_key = $1", key)
    await other.execute("DELETE FROM ledger_entries WHERE idempotency_key = $1", f"refund:re_{payment}")
    wrong = [(each["target_ref"].partition(":")[0], each["key"]) for each in await all_wrong(world, account)]
    assert set(wrong) == {("meter", key), ("payment", f"refund:re_{payment}"), ("account", None), ("account", key)}
    # and has put it right again
    await other.execute("DELETE FROM ledger_entries WHERE account_id = $1", account)
    await other.execute("INSERT INTO ledger_entries SELECT * FROM saved")
    await other.close()
    assert await all_wrong(world, account) == []


async def test_another_policy_is_tried_on_what_was(world: World, stripe: StripeSimulator, machine: Machine) -> None:
    await refunded(world, stripe, machine)
    same = BUILT_IN.read_text().replace("window_us = 3_600_000_000", f"window_us = {WINDOW_US}")
    other = same.replace('id = "force_platform_fault"\ncause', 'id = "half"\ncause').replace("bp = 10000", "bp = 5000")
    assert other != same
    for text in (same, other):
        file = world.state_dir / "other.toml"
        file.write_text(text)
        said = await world.amends("policy", "backtest", str(file), "--since", "2020-01-01T00:00:00Z", "--json")
        found = json.loads(said)
        was = found["charged_minor"] - found["credited_minor"]
        would = found["would_charge_minor"] - found["would_credit_minor"]
        assert found["not_comparable"] == 0
        assert (would > was) == (text is other)
        assert (would == was) == (text is same)
        assert [each["meter_id"] for each in found["changes"] if text is same] == []
    await world.refused("ops.policy.backtest", {"toml": "x = 1.5", "since_us": 0}, "invalid_request")
