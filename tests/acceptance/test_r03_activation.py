"""R03 from outside: an activation that the database refuses is tried again, then undone; a lock only delays its own."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.acceptance.machine import Machine, user_of
from tests.acceptance.records import ended_run, events, meters, notifications, runs
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHERS = 200


@asynccontextmanager
async def refusing_activation(world: World, condition: str = "true") -> AsyncIterator[None]:
    """A trigger that raises when an allocation is to become active and `condition` holds."""
    await world.sql.execute(
        "CREATE FUNCTION no_activation() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF {condition} THEN RAISE EXCEPTION 'no activation today'; END IF; RETURN NEW; END $$"
    )
    await world.sql.execute(
        "CREATE TRIGGER no_activation BEFORE INSERT OR UPDATE ON allocations FOR EACH ROW "
        "WHEN (NEW.state = 'active') EXECUTE FUNCTION no_activation()"
    )
    try:
        yield
    finally:
        await world.sql.execute("DROP FUNCTION no_activation() CASCADE")


@asynccontextmanager
async def locking(world: World, query: str, *args: Any) -> AsyncIterator[None]:
    """A foreign session that holds the rows of `query` locked."""
    foreign = await world.superuser()
    try:
        async with foreign.transaction():
            assert await foreign.fetch(f"{query} FOR UPDATE", *args)
            yield
    finally:
        await foreign.close()


async def others_live(world: World) -> float:
    """Many other entities are asked for things at once; how many seconds until the last has its answer."""
    begun = time.monotonic()
    names = [world.new_name("other") for _ in range(OTHERS // 2)]
    await asyncio.gather(*(world.account(name) for name in names))
    await asyncio.gather(*(world.request(name, node_labels={"zone": "nowhere"}) for name in names))
    return time.monotonic() - begun


async def test_an_activation_that_is_always_refused_fails_and_its_user_is_removed(
    world: World, machine: Machine
) -> None:
    # given a database that refuses every activation
    async with refusing_activation(world):
        # when
        allocation_id = await world.request(node_id=machine.node_id)
        row = await world.allocation_is(allocation_id, "failed")
    # then
    assert row["failure_code"] == "activation_failed"
    entity, user = f"allocation:{allocation_id}", f"node:{machine.node_id}/user:{user_of(allocation_id)}"
    await world.cleaned(allocation_id)
    run = await ended_run(world, entity, "R03")
    assert run.kinds() == [*["retry·failure"] * 3, "compensation·success", "compensation·success"]
    assert run.shape() == [f"compensate·side_effect·{user}·success", f"reverse·side_effect·{user}·success"]
    assert run.supersedes() == [None, 0]
    assert run.outcome == "recovered"
    assert len(run.failures) == 3
    assert all("no activation today" in failure["message"] for failure in run.failures)
    tries = await world.rows(
        "SELECT state, attempt FROM public_v1.step WHERE entity = $1 AND name = 'activation' ORDER BY attempt", entity
    )
    assert tries == [{"state": "failed", "attempt": attempt} for attempt in (1, 2, 3)]
    assert machine.ops(allocation_id) == ["user-create", "key-install", "user-remove"]
    assert await meters(world, allocation_id) == []
    assert [n["kind"] for n in await notifications(world, entity)] == ["allocation.failed"]
    assert await events(world, entity) == ["requested", "provisioning", "activating", "failed"]
    # and the node is assignable again
    node = await world.node(machine.node_id)
    assert (node["state"], node["reserved_by"], node["dirty"]) == ("ready", None, False)
    second = await world.rent(node_id=machine.node_id)
    await world.release(second)
    await world.cleaned(second)


async def test_an_activation_that_is_refused_once_succeeds_without_compensation(world: World, machine: Machine) -> None:
    # given a database that refuses until one try has failed
    none_failed = (
        "NOT EXISTS (SELECT FROM step WHERE entity = 'allocation:' || NEW.allocation_id "
        "AND name = 'activation' AND state = 'failed')"
    )
    async with refusing_activation(world, none_failed):
        # when
        allocation_id = await world.rent(node_id=machine.node_id)
    # then
    run = await ended_run(world, f"allocation:{allocation_id}", "R03")
    assert run.shape() == []
    assert run.outcome == "recovered"
    assert run.kinds() == ["retry·failure", "retry·success"]
    assert machine.ops(allocation_id) == ["user-create", "key-install"]
    assert [meter["state"] for meter in await meters(world, allocation_id)] == ["accruing"]
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


async def not_delayed(world: World, took: float, before: float) -> None:
    """Others lived about as fast as they did shortly `before`, and do now: a busy machine is slow all the time."""
    usual = max(before, await others_live(world))
    assert took < usual * 3 + 1.5, f"{OTHERS} others took {took:.2f} s, usually {usual:.2f} s"


async def test_a_refused_activation_delays_nobody_else(world: World, machine: Machine) -> None:
    usual = await others_live(world)
    async with refusing_activation(world, f"NEW.body ->> 'node_id' = '{machine.node_id}'"):
        allocation_id = await world.request(node_id=machine.node_id)
        took = await others_live(world)
        await world.allocation_is(allocation_id, "failed")
    await not_delayed(world, took, usual)
    await world.cleaned(allocation_id)


async def test_a_row_that_a_foreign_session_has_locked_is_only_delayed(world: World, machine: Machine) -> None:
    # given a set-up whose row is locked before it can become active
    usual = await others_live(world)
    machine.fault("key-install", "delay", seconds=1.0)
    allocation_id = await world.request(node_id=machine.node_id)

    async def installing() -> Any:
        query = "SELECT FROM public_v1.step WHERE entity = $1 AND name = 'ssh.key-install'"
        return await world.rows(query, f"allocation:{allocation_id}")

    await until(installing, "the key is being installed")  # earlier the lock would hold up the user's own turn
    async with locking(world, "SELECT FROM allocations WHERE allocation_id = $1", allocation_id):

        async def installed() -> bool:
            return "key-install" in machine.ops(allocation_id)

        await until(installed, "the key is installed")
        # when others live meanwhile, then they are not delayed
        took = await others_live(world)
        assert (await world.allocation(allocation_id))["state"] == "provisioning"
    await not_delayed(world, took, usual)
    # then it goes on where it stood, and nothing has failed
    await world.allocation_is(allocation_id, "active")
    assert await runs(world, f"allocation:{allocation_id}") == []
    assert machine.ops(allocation_id) == ["user-create", "key-install"]
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


@pytest.mark.parametrize("table", ["allocations", "assignments", "meters"])
async def test_a_locked_row_of_a_release_delays_that_release_alone(world: World, machine: Machine, table: str) -> None:
    # given an active allocation of which a foreign session holds a row
    allocation_id = await world.rent(node_id=machine.node_id)
    usual = await others_live(world)
    async with locking(world, f"SELECT FROM {table} WHERE allocation_id = $1", allocation_id):
        # when it is released and two hundred others live
        releasing = asyncio.create_task(world.release(allocation_id))
        took = await others_live(world)
        # then they all have their answers while the row is still locked
        assert (await world.allocation(allocation_id))["state"] in {"active", "releasing"}
    await releasing
    await not_delayed(world, took, usual)
    await world.cleaned(allocation_id)
    assert await runs(world, f"allocation:{allocation_id}") == []


async def test_a_node_that_is_quarantined_during_the_set_up_gets_no_customer(world: World, machine: Machine) -> None:
    # given a set-up under way
    machine.fault("key-install", "delay", seconds=0.5)
    allocation_id = await world.request(node_id=machine.node_id)
    await world.allocation_is(allocation_id, "provisioning")
    # when an operator takes the node out of service
    await world.ok("ops.node.quarantine", {"node_id": machine.node_id, "reason": "smoke"})
    # then the allocation fails, without a meter, and its user is removed
    row = await world.allocation_is(allocation_id, "failed")
    assert row["failure_code"] == "node_offline"
    await world.cleaned(allocation_id)
    run = await ended_run(world, f"allocation:{allocation_id}", "R02")
    assert run.shape() == [
        f"reverse·side_effect·node:{machine.node_id}/user:{user_of(allocation_id)}·success",
        f"rollback·state_change·node:{machine.node_id}·success",
    ]
    assert machine.ops(allocation_id) == ["user-create", "key-install", "user-remove"]
    assert machine.users == []
    assert await meters(world, allocation_id) == []
    await world.ok("ops.node.return_to_service", {"node_id": machine.node_id, "reason": "aired"})
    await world.node_is(machine.node_id, "ready")


@pytest.mark.parametrize("op", ["user-create", "key-install"])
async def test_a_database_that_dies_during_the_set_up_loses_nothing_of_it(
    world: World, machine: Machine, op: str
) -> None:
    # given a set-up under way
    machine.fault(op, "delay", seconds=0.3)
    allocation_id = await world.request(node_id=machine.node_id)
    await world.allocation_is(allocation_id, "provisioning")
    # when the database is killed
    pid = world.postgres_pid()
    world.sql.terminate()
    os.kill(pid, signal.SIGKILL)
    asking = asyncio.create_task(world.ask_until("cmd.account.create", _account(world), key=world.new_key()))

    # then the runtime starts it again, and goes on where it stood
    async def back() -> bool:
        with contextlib.suppress(OSError, asyncpg.PostgresError, ValueError):
            await world.open_sql()
            return world.postgres_pid() != pid
        return False

    await until(back, "Postgres is back", 30)
    await world.allocation_is(allocation_id, "active")
    assert [meter["state"] for meter in await meters(world, allocation_id)] == ["accruing"]
    assert await events(world, f"allocation:{allocation_id}") == ["requested", "provisioning", "activating", "active"]
    assert await runs(world, f"allocation:{allocation_id}") == []
    assert (await asking)["ok"]
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


def _account(world: World) -> dict[str, str]:
    return {"account_id": world.new_name("patient"), "currency": "usd"}
