"""Credits on their way to a Stripe that fails in every way: none lost, none twice, none forgotten (R06, B5)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from adapters.simulated.stripe_faults import StripeFault
from supervisors.invariants import committed
from supervisors.simulation.checks import mirrored, records_of
from supervisors.simulation.stories import DEAR
from supervisors.simulation.world import Refused, Running, World

CUSTOMER = "cus_1"


def run(tell: Callable[[Running], Awaitable[None]], world: World | None = None) -> World:
    world = world or World(1)

    async def story(running: Running) -> None:
        await tell(running)
        await running.quiet()

    assert world.run(story)
    assert committed(records_of(world.database)) == []
    return world


async def refunded(running: Running, customer: str, *keys: str) -> None:
    """Rentals of one account that the policy pays back, one after the other."""
    await running.account("acme", stripe_customer_id=customer)
    for key in keys:
        await running.node(f"n-{key}")
        allocation = await running.rent("acme", key, rate=DEAR)
        await running.until(lambda one=allocation: running.state("allocation", one) == "active")  # type: ignore[misc]
        await running.used(allocation, 1.5)
        await running.force(allocation, f"force-{key}", "platform_fault")


def rows(world: World) -> list[str]:
    return sorted(row["state"] for row in world.database.tables.rows["mirrored_credits"].values())


def cases(world: World) -> list[str]:
    return [row["state"] for row in world.database.tables.rows["ops_case"].values()]


def outcomes(world: World) -> list[Any]:
    found = world.database.tables.rows["recovery_run"].values()
    return [row["final_outcome"] for row in found if row["entity"] == "account:acme"]


def test_while_stripe_errs_no_try_is_spent_and_nobody_is_called() -> None:
    world = World(1)
    customer = world.stripe.customer()
    world.stripe.book.faults.add(StripeFault(kind="error", times=40))

    async def tell(running: Running) -> None:
        await refunded(running, customer, "a", "b")
        await running.until(lambda: rows(world) == ["done", "done"])

    run(tell, world)
    assert (mirrored(world), cases(world), outcomes(world)) == ([], [], [])


def test_a_case_stays_open_as_long_as_one_credit_is_given_up() -> None:
    world = World(1)

    async def tell(running: Running) -> None:
        await refunded(running, CUSTOMER, "a", "b")  # nobody knows that customer there
        await running.until(lambda: rows(world) == ["failed", "failed"])
        known(world)
        wrong = by_hand(world, asked(world)[0])
        await running.ask("ops.account.retry_mirror", "again", account_id="acme", reason="it is there again")
        await running.quiet()
        assert (rows(world), cases(world)) == (["done", "failed"], ["open"])
        del world.stripe.book.of("customer_balance_transaction")[wrong]
        await running.ask("ops.account.retry_mirror", "once more", account_id="acme", reason="now")
        await running.quiet()
        assert rows(world) == ["done", "done"]

    run(tell, world)
    assert (mirrored(world), cases(world)) == ([], ["resolved"])
    assert outcomes(world) == ["failed", "failed", "failed", "recovered"]  # each of a credit, then each of a command


def asked(world: World) -> list[str]:
    """The idempotency keys under which credits were sent, in order."""
    return [seen.key for seen in world.stripe.book.seen if seen.method == "POST" and seen.key]


def test_a_credit_that_was_never_sent_is_sent_under_its_own_key_once_it_is_not_only_on_its_way() -> None:
    world = World(1)
    customer = world.stripe.customer()

    async def tell(running: Running) -> None:
        running.core.pool.mirrors = False  # as before the mirror was switched on
        await refunded(running, customer, "a")
        await running.quiet()
        assert rows(world) == []
        running.core.pool.mirrors = True
        with pytest.raises(Refused, match="at Stripe, or on its way"):
            await running.ask("ops.account.retry_mirror", "soon", account_id="acme", reason="it is on now")
        await asyncio.sleep(61)
        await running.ask("ops.account.retry_mirror", "later", account_id="acme", reason="it is on now")
        await running.until(lambda: rows(world) == ["done"])

    run(tell, world)
    assert mirrored(world) == []
    assert [key.endswith(":force_platform_fault") for key in asked(world)] == [True], asked(world)


def test_a_credit_that_was_refused_is_sent_again_under_another_key() -> None:
    world = World(1)

    async def tell(running: Running) -> None:
        await refunded(running, CUSTOMER, "a")
        await running.until(lambda: rows(world) == ["failed"])
        known(world)
        await running.ask("ops.account.retry_mirror", "again", account_id="acme", reason="it is there now")
        await running.until(lambda: rows(world) == ["done"])

    run(tell, world)
    assert mirrored(world) == []
    first, second = asked(world)
    assert second == f"{first}#1"


def by_hand(world: World, ledger_key: str) -> str:
    """Somebody has made another credit under that key; its transaction."""
    params = {"amount": "-1", "currency": "usd", "metadata": {"ledger_key": ledger_key, "source": "amends"}}
    made = world.stripe.book.call("POST", f"/v1/customers/{CUSTOMER}/balance_transactions", params)
    return str(made["id"])


def known(world: World) -> None:
    """Somebody has made the customer."""
    made = world.stripe.customer()
    customers = world.stripe.book.of("customer")
    customers[CUSTOMER] = {**customers.pop(made), "id": CUSTOMER}


def test_what_a_person_has_settled_is_never_sent() -> None:
    world = World(1)

    async def tell(running: Running) -> None:
        await refunded(running, CUSTOMER, "a")
        await running.until(lambda: rows(world) == ["failed"])
        (case,) = world.database.tables.rows["ops_case"].values()
        await running.ask("ops.case.resolve", "resolve", case_id=case["case_id"], reason="paid by bank transfer")
        await refunded(running, CUSTOMER, "b")
        await running.until(lambda: rows(world) == ["failed", "settled"])
        known(world)
        await running.ask("ops.account.retry_mirror", "again", account_id="acme", reason="it is there again")
        await running.quiet()

    run(tell, world)
    assert rows(world) == ["done", "settled"]
    assert len(world.stripe.mirrored(CUSTOMER)) == 1
