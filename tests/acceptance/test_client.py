"""The client library against a real runtime: the example, a life by its calls, a node that fails, a kill."""

import asyncio
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Unpack

import pytest

from amends_client import Client, Ended, Refused, Rental, connect
from amends_client.calls import CommandOptions
from tests.acceptance.machine import CUSTOMER_KEY, Machine
from tests.acceptance.world import RATE, World
from tests.forked import PIPE, python
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")


def asking(world: World) -> AbstractAsyncContextManager[Client]:
    return connect(world.endpoints["nats_url"], token=world.endpoints["operator_token"], deadline_s=PATIENCE_S)


async def rent(client: Client, machine: Machine, **options: Unpack[CommandOptions]) -> Rental:
    return await client.allocation.request(
        account_id="acme", ssh_public_key=CUSTOMER_KEY, rate_uminor_per_hour=RATE, node_id=machine.node_id, **options
    )


async def names(client: Client, rental: Rental, after: int, last: str) -> list[str | None]:
    """The states that events tell, up to `last`."""
    found = []
    async with asyncio.timeout(PATIENCE_S), aclosing(client.events("allocation", rental.id, after)) as events:
        async for event in events:
            found.append(event.to)
            if event.to == last:
                break
    return found


async def test_the_example_rents_shows_the_way_in_gives_back_and_prints_the_statement(
    world: World, machine: Machine
) -> None:
    """The first of the module: it takes whatever node is free, and there is but one."""
    key_file = world.state_dir / "customer.pub"
    key_file.write_text(f"{CUSTOMER_KEY}\n")
    process = await python("-m", "examples.small_platform", world.state_dir, key_file, stdout=PIPE, stderr=PIPE)
    said, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()
    lines = said.decode().splitlines()
    assert f"log in: ssh -p {machine.ssh.port} am-" in lines[1]
    assert lines[2].endswith(": released")
    assert any("debit" in line for line in lines)
    assert any(line.startswith("balance of jane: -") for line in lines)
    assert " released order-" in lines[-1]


async def test_a_rental_is_asked_for_waited_for_and_given_back(world: World, machine: Machine) -> None:
    async with asking(world) as client:
        # when a machine is rented and waited for
        rental = await rent(client, machine, key="order 1")
        row = await rental.until("active", timeout_s=PATIENCE_S)
        # then the row says how to get in, and is the one that a question gets
        assert row.access is not None
        assert row.access.port == machine.ssh.port
        assert row == await client.allocation.get(rental.id)
        # and the same order is the same rental, but no other one
        again = await rent(client, machine, key="order 1")
        assert again.reply is not None
        assert (again.id, again.reply.duplicate) == (rental.id, True)
        with pytest.raises(Refused, match="idempotency_mismatch"):
            await client.account.create(account_id="other", currency="usd", key="order 1")
        # when it is given back
        released = await client.allocation.release(allocation_id=rental.id)
        await released.until("released", timeout_s=PATIENCE_S)
        # then its events are there, and the rest of them after the one that was dealt with
        whole = await names(client, rental, 0, "released")
        assert whole == ["requested", "provisioning", "activating", "active", "releasing", "released"]
        assert await names(client, rental, 3, "released") == whole[3:]
        assert rental.id in [row.allocation_id async for row in client.allocation.list(account_id="acme", page=1)]


async def test_a_rental_that_fails_ends_the_wait_with_its_code(world: World, machine: Machine) -> None:
    await machine.ssh.stop()
    async with asking(world) as client:
        with pytest.raises(Ended, match="can never be active") as caught:
            await (await rent(client, machine)).until("active", timeout_s=PATIENCE_S)
    assert (caught.value.code, caught.value.state) == ("ssh_connect_failed", "failed")


async def test_a_call_and_a_wait_outlast_a_kill_of_the_runtime(world: World, machine: Machine) -> None:
    async with asking(world) as client:
        # given somebody who waits
        node = await client.node.follow(machine.node_id)
        waiting = asyncio.create_task(node.until("draining", timeout_s=PATIENCE_S))
        # when the runtime is killed and a command is sent while nobody is there
        world.kill()
        drained = asyncio.create_task(client.ops.node.drain(node_id=machine.node_id, reason="it is old", key="drain"))
        await world.restart()
        # then both are answered by the next one
        assert (await drained).row.state == "draining"
        assert (await waiting).state == "draining"
        again = await client.ops.node.drain(node_id=machine.node_id, reason="it is old", key="drain")
        assert again.reply is not None
        assert again.reply.duplicate
