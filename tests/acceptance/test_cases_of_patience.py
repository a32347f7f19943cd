"""Cases that open only after a long time: an agent of which nothing is heard, a payment of which nobody knows whose."""

import time
from typing import Any

import asyncpg
import pytest

from adapters.embedded.postgres import EmbeddedPostgres
from supervisors.simulation.events import intent
from tests.acceptance.console import settle
from tests.acceptance.machine import Machine
from tests.acceptance.records import cases
from tests.acceptance.stripe import CONFIG as STRIPE
from tests.acceptance.stripe import deliver
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONFIG = STRIPE
LET_GO_BY = """UPDATE {} SET due_us = $2, body = jsonb_set(body, ARRAY['timers', $3], to_jsonb($2::bigint))
               WHERE {} = $1 AND body -> 'timers' ? $3"""


async def stopped_until(world: World, table: str, key: str, name: str, timer: str) -> None:
    """The runtime is killed, and started again when that timer's time has come."""
    assert world.process is not None
    world.kill()
    await world.process.wait()
    postgres = EmbeddedPostgres(world.state_dir)  # its own has ended with it
    await postgres.start()
    session = await asyncpg.connect(postgres.superuser_dsn)
    await session.execute("SET session_replication_role = replica")
    done = await session.execute(LET_GO_BY.format(table, key), name, time.time_ns() // 1000, timer)
    await session.close()
    await postgres.stop()
    assert done == "UPDATE 1"
    await world.restart()


async def opened(world: World, target: str) -> str:
    """The kind of the open case of that target, once there is one."""

    async def there() -> Any:
        return [case for case in await cases(world, target) if case["state"] == "open"]

    (case,) = await until(there, f"a case of {target} is open")
    return str(case["kind"])


async def resolved(world: World, target: str) -> None:
    """Wait until no case of that target is open."""

    async def none_open() -> bool:
        return all(case["state"] == "resolved" for case in await cases(world, target))

    await until(none_open, f"the case of {target} is resolved")


async def test_a_node_whose_agent_is_silent_for_long_is_taken_out_in_the_console(
    world: World, machine: Machine
) -> None:
    # given a machine that answers over SSH, and whose agent has not been heard for a quarter of an hour
    await machine.fall_silent()
    await stopped_until(world, "nodes", "node_id", machine.node_id, "agent_silent")
    target = f"node:{machine.node_id}"
    assert await opened(world, target) == "agent_silent"
    # when somebody has it taken out, then it is; the case is resolved when its agent is heard again
    await settle(world, "agent_silent", target, "ops.node.quarantine")
    await world.node_is(machine.node_id, "quarantined")
    machine.beating = True
    await resolved(world, target)
    await world.ok("ops.node.return_to_service", {"node_id": machine.node_id, "reason": "its agent runs again"})
    await world.node_is(machine.node_id, "ready")


async def test_a_payment_of_which_nobody_knows_whose_it_is_is_given_to_its_account_in_the_console(
    world: World,
) -> None:
    # given a payment that has waited three days for an account
    await deliver(world, "http", intent("evt_lost", "pi_lost", 4200, customer="cus_unheard_of"))
    await stopped_until(world, "payments", "payment_id", "pi_lost", "deferred")
    target = "stripe_event:evt_lost"
    assert await opened(world, target) == "deferred_payment"
    # when somebody says whose it is, then it is booked and the case resolved
    await settle(world, "deferred_payment", target, "ops.payment.assign", account_id="acme")
    await resolved(world, target)
    query = "SELECT account_id, amount_minor FROM public_v1.ledger_entry WHERE idempotency_key = 'topup:pi_lost'"
    assert await world.rows(query) == [{"account_id": "acme", "amount_minor": 4200}]
