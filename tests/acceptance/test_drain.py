"""SIGTERM drains: no new work, what runs ends or is left to the next start, exit 0 in time. A second one: at once."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from nats.errors import NoRespondersError

from adapters.embedded.nats import EmbeddedNats
from adapters.ssh.signing import is_signed
from amends.values.anchors import Anchored, parsed
from tests.acceptance.machine import Machine, user_of
from tests.acceptance.records import all_is_well, ended_run, events, runs
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEAD = "amends.v1.evt.audit.head.anchored"
DRAIN_S = 3.0  # drain_timeout_ms of the acceptance profile


async def under_way(world: World, allocation_id: str, name: str) -> None:
    """Wait until that step of the allocation runs."""

    async def check() -> Any:
        query = "SELECT * FROM public_v1.step WHERE entity = $1 AND name = $2 AND state = 'intended'"
        return await world.rows(query, f"allocation:{allocation_id}", name)

    await until(check, f"{name} is under way", pause_s=0.005)


async def drained(world: World, *, signals: int = 1, number: int = signal.SIGTERM) -> tuple[int, float]:
    """Ask the runtime to end; its exit status, and how many seconds it took."""
    assert world.process is not None
    begun = time.monotonic()
    for _ in range(signals):
        world.process.send_signal(number)
        await asyncio.sleep(0.05)
    async with asyncio.timeout(60):
        status = await world.process.wait()
    return status, time.monotonic() - begun


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def idle_s(world: World) -> float:
    """Seconds in which a runtime with nothing to do ends, servers included: a drain is measured from there."""
    status, took = await drained(world)
    assert status == 0
    await world.restart()
    return took


async def test_an_idle_runtime_ends_at_once(world: World, machine: Machine, idle_s: float) -> None:
    # given a runtime with machines but no work
    status, took = await drained(world)
    # then it waits for nothing: it takes what another that was idle took, and not the time of a drain
    assert status == 0
    assert took < idle_s + DRAIN_S / 2
    # and its last word is an anchor of the head it left, which the next one's history must have passed
    kept = world.state_dir / "anchors.jsonl"
    last = parsed(kept.read_bytes().splitlines()[-1])
    await world.restart()
    await world.node_is(machine.node_id, "ready")
    assert last is not None
    opening = [anchor for anchor in map(parsed, kept.read_bytes().splitlines()) if anchor and anchor.mark == "opening"][
        -1
    ]
    assert (last.mark, opening.epoch, opening.seq) == ("closing", last.epoch + 1, last.seq)
    ((digest, audit_hash),) = await anchored_heads(world, last.seq)
    assert (digest, audit_hash) == (last.digest, last.audit_hash)

    async def published() -> bool:
        found = [each["body"]["data"] for each in await world.stored("AMENDS_EVT") if each["subject"] == HEAD]
        return any(is_signed(each["key"], as_signed(each), each["signature"]) for each in found)

    await until(published, "a signed head is published")
    await world.amends("audit", "verify", "--state-dir", str(world.state_dir), "--anchors", str(kept))


async def anchored_heads(world: World, seq: int) -> list[tuple[str, str]]:
    rows = await world.rows("SELECT hash, audit_hash FROM journal_digest WHERE seq = $1", seq)
    return [(row["hash"], row["audit_hash"]) for row in rows]


def as_signed(data: dict[str, Any]) -> bytes:
    """What the event's signature is over: an anchor of the same fields."""
    return msgspec.convert({key: value for key, value in data.items() if key != "hash"}, Anchored).signed()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_short_step_ends_before_the_runtime_does(
    world: World, machine: Machine, idle_s: float, number: int
) -> None:
    # given a step that takes a moment
    machine.fault("user-create", "delay", seconds=0.5)
    allocation_id = await world.request(node_id=machine.node_id)
    await under_way(world, allocation_id, "ssh.user-create")
    # when the runtime is asked to end
    status, took = await drained(world, number=number)
    assert status == 0
    assert took < DRAIN_S + idle_s
    assert machine.ops(allocation_id) == ["user-create"]
    # then the next start goes on behind it
    await world.restart()
    await world.allocation_is(allocation_id, "active")
    assert machine.ops(allocation_id) == ["user-create", "key-install"]
    assert await runs(world, f"allocation:{allocation_id}") == []
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


async def test_a_long_step_is_left_to_the_next_start_which_resumes_it(
    world: World, machine: Machine, idle_s: float
) -> None:
    # given a step that takes longer than the runtime may stay
    machine.fault("key-install", "delay", seconds=8)
    allocation_id = await world.request(node_id=machine.node_id)
    await under_way(world, allocation_id, "ssh.key-install")
    attempt = (await world.allocation(allocation_id))["attempt_id"]
    # when
    status, took = await drained(world)
    # then it ends in time
    assert status == 0
    assert took < DRAIN_S + idle_s
    # and the step is resumed under the same attempt
    await world.restart()
    row = await world.allocation_is(allocation_id, "active")
    assert row["attempt_id"] == attempt
    assert await runs(world, f"allocation:{allocation_id}") == []
    assert await events(world, f"allocation:{allocation_id}") == ["requested", "provisioning", "activating", "active"]
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


async def test_an_undo_under_way_is_finished_by_the_next_start(world: World, machine: Machine, idle_s: float) -> None:
    # given an undo that hangs
    machine.fault("key-install", "exit")
    machine.fault("user-remove", "hang")
    allocation_id = await world.request(node_id=machine.node_id)
    await under_way(world, allocation_id, "ssh.user-remove")
    # when
    status, took = await drained(world)
    assert (status, took < DRAIN_S + idle_s) == (0, True), (took, idle_s)
    await world.restart()
    # then
    row = await world.cleaned(allocation_id)
    assert (row["state"], row["failure_code"]) == ("failed", "ssh_step_failed")
    run = await ended_run(world, f"allocation:{allocation_id}", "R02")
    assert run.outcome == "recovered"
    assert run.shape()[-2:] == [
        f"reverse·side_effect·node:{machine.node_id}/user:{user_of(allocation_id)}·success",
        f"rollback·state_change·node:{machine.node_id}·success",
    ]
    assert machine.users == []


async def test_while_it_drains_it_takes_no_new_work_and_loses_no_answer(
    world: World, machine: Machine, idle_s: float
) -> None:
    # given a runtime that drains with a step under way
    machine.fault("user-create", "delay", seconds=0.8)
    allocation_id = await world.request(node_id=machine.node_id)
    await under_way(world, allocation_id, "ssh.user-create")
    names = [world.new_name("late") for _ in range(30)]
    asking = [asyncio.create_task(_ask(world, name)) for name in names]
    await asyncio.sleep(0)
    draining = asyncio.create_task(drained(world))
    late = [asyncio.create_task(_ask(world, world.new_name("later"))) for _ in range(10)]
    replies = [*await asyncio.gather(*asking), *await asyncio.gather(*late)]
    # then each request was answered ok, refused as draining, or never taken
    status, took = await draining
    assert (status, took < DRAIN_S + idle_s) == (0, True), (took, idle_s)
    assert {reply["ok"] or reply["error"]["code"] for reply in replies} <= {True, "draining", "nobody"}
    await world.restart()
    for reply in replies:
        if reply["ok"]:
            account_id = reply["data"]["account"]["account_id"]
            assert await world.rows("SELECT * FROM public_v1.account WHERE account_id = $1", account_id)
    # and asked again under their keys, all are done, none twice
    for name in names:
        assert (await world.ask_until("cmd.account.create", _account(name), key=name))["ok"]
        assert await events(world, f"account:{name}") == ["open"]
    await world.allocation_is(allocation_id, "active")
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


async def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(
    world: World, machine: Machine, idle_s: float
) -> None:
    # given a step that would hold the drain up
    machine.fault("key-install", "delay", seconds=8)
    allocation_id = await world.request(node_id=machine.node_id)
    await under_way(world, allocation_id, "ssh.key-install")
    # when it is asked twice
    _, took = await drained(world, signals=2)
    # then it is gone at once, without the wait of a drain
    assert took < idle_s + DRAIN_S / 2
    # and the next start finishes what it began
    await world.restart()
    await world.allocation_is(allocation_id, "active")
    assert await runs(world, f"allocation:{allocation_id}") == []
    await all_is_well(world)
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


def _account(name: str) -> dict[str, str]:
    return {"account_id": name, "currency": "usd"}


async def _ask(world: World, name: str) -> dict[str, Any]:
    try:
        return await world.ask("cmd.account.create", _account(name), key=name, timeout_s=3)
    except (NoRespondersError, TimeoutError):
        return {"ok": False, "error": {"code": "nobody"}}


async def test_without_its_broker_it_drains_in_time_too(state_dir: Path, idle_s: float) -> None:
    # given a runtime whose broker, which is not its own, goes away
    broker = EmbeddedNats(state_dir.parent / "broker")
    await broker.start()
    outside = World(state_dir, f'callers = "open"\n[nats]\nservers = ["{broker.url}"]\n')
    try:
        async with outside.running() as world:
            await world.account("acme")
            await broker.stop()
            await asyncio.sleep(0.3)  # long enough for its client to have begun to reconnect
            # when it is asked to end
            status, took = await drained(world)
            # then
            assert (status, took < DRAIN_S + idle_s) == (0, True), (took, idle_s)
    finally:
        await broker.stop()
