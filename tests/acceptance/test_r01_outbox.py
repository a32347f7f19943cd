"""R01 from outside: what is accepted is published in its order, once, however long the stream or the bus is away."""

import asyncio
import os
import signal
from typing import Any

import pytest
from nats.js.api import DiscardPolicy

from tests.acceptance.console import settle
from tests.acceptance.machine import CUSTOMER_KEY, Machine
from tests.acceptance.records import all_is_well, audit, cases, ended_run, events, runs
from tests.acceptance.world import EVENTS, RATE, World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
# The machines of earlier tests are gone for good: their loss would be told in the middle of what is looked at here.
CONFIG = "[timing]\noffline_after_ms = 3600000\n"

SETTLED = "stream:AMENDS_EVT"


async def outbox(world: World, entity: str) -> list[dict[str, Any]]:
    """The outbox rows of an entity, in their order."""
    return await world.rows("SELECT * FROM public_v1.outbox WHERE entity = $1 ORDER BY outbox_id", entity)


async def drained(world: World) -> None:
    """Wait until no event waits to be published."""

    async def check() -> bool:
        return not await world.rows("SELECT * FROM public_v1.outbox WHERE state = 'pending'")

    await until(check, "the outbox is empty")


async def copies(world: World) -> dict[str, int]:
    """How often each message id stands in the stream."""
    counted: dict[str, int] = {}
    for message in await world.stored(EVENTS):
        counted[message["msg_id"]] = counted.get(message["msg_id"], 0) + 1
    return counted


async def test_without_its_stream_an_event_waits_and_the_rental_goes_on(world: World, machine: Machine) -> None:
    await drained(world)
    async with world.without_stream(EVENTS):
        # given no stream, when an allocation is requested, then the reply is ok and the rental goes on to active
        allocation_id = await world.rent(node_id=machine.node_id)
        entity = f"allocation:{allocation_id}"

        # then its first event is tried again and again, and nothing else is
        async def tried() -> Any:
            return (await outbox(world, entity))[0]["attempts"] >= 3

        await until(tried, "the oldest event was tried three times")
        rows = await outbox(world, entity)
        assert [row["state"] for row in rows] == ["pending"] * 4
        assert [row["attempts"] for row in rows[1:]] == [0, 0, 0]
        (open_run,) = await runs(world, f"outbox:{rows[0]['outbox_id']}", "R01")
        assert (open_run.outcome, open_run.shape()) == (None, [])
        # then the runtime leaves it to others to make the stream again
        assert not await world.has_stream(EVENTS)
    # when it is made again, then each event stands in it once, in order
    await drained(world)
    assert await events(world, entity) == ["requested", "provisioning", "activating", "active"]
    found = await copies(world)
    rows = await outbox(world, entity)
    assert [found[row["outbox_id"]] for row in rows] == [1, 1, 1, 1]
    assert [row["state"] for row in rows] == ["published"] * 4
    assert all(row["published_us"] >= row["created_us"] for row in rows)
    # and one run, of the row that was stuck, says how many stood behind it
    first = f"outbox:{rows[0]['outbox_id']}"
    run = await ended_run(world, first, "R01")
    assert run.outcome == "recovered"
    assert run.shape() == [f"compensate·external_call·{first}·success"]
    # (the rental's own three, and on a slow machine the alarm that the outbox lags)
    out_us = rows[0]["published_us"]
    query = "SELECT entity FROM outbox WHERE outbox_id <> $1 AND created_us < $2 AND published_us >= $2"
    behind = [row["entity"] for row in await world.rows(query, rows[0]["outbox_id"], out_us)]
    assert sorted(set(behind) | {"control_plane:runtime"}) == sorted({entity, "control_plane:runtime"})
    assert run.compensations[0]["metadata"]["released"] == len(behind) == 3 + behind.count("control_plane:runtime")
    assert run.kinds() == ["retry·failure", "retry·success", "compensation·success"]
    for row in rows[1:]:
        assert await runs(world, f"outbox:{row['outbox_id']}") == []
    await world.release(allocation_id)
    await world.cleaned(allocation_id)


async def test_the_order_of_each_entity_is_kept_over_an_outage(world: World) -> None:
    names = [world.new_name("acct") for _ in range(10)]
    await drained(world)
    async with world.without_stream(EVENTS):
        await asyncio.gather(*(world.account(name) for name in names))
        requested = [await world.request(name, node_labels={"zone": "nowhere"}) for name in names]
        await asyncio.gather(*(world.release(allocation_id) for allocation_id in requested))
    await drained(world)
    for allocation_id in requested:
        assert await events(world, f"allocation:{allocation_id}") == ["requested", "failed"]


async def test_the_same_request_under_the_same_key_makes_one_allocation(world: World) -> None:
    # given a request during an outage of its stream
    data = {
        "account_id": "acme", "ssh_public_key": CUSTOMER_KEY, "rate_uminor_per_hour": RATE,
        "node_labels": {"zone": "nowhere"}, "external_ref": "order-17",
    }  # fmt: skip
    key = world.new_key()
    await drained(world)
    async with world.without_stream(EVENTS):
        # when it is sent five times at once, and once more afterwards with its fields in another order
        replies = await asyncio.gather(*(world.ask("cmd.allocation.request", data, key=key) for _ in range(5)))
        turned = dict(reversed(data.items()))
        replies.append(await world.ask("cmd.allocation.request", turned, key=key))
    # then all are ok, one is the first, and there is one allocation
    assert [reply["ok"] for reply in replies] == [True] * 6
    assert sorted(reply["duplicate"] for reply in replies) == [False] + [True] * 5
    ids = {reply["data"]["allocation"]["allocation_id"] for reply in replies}
    assert len(ids) == 1
    rows = await world.rows("SELECT * FROM public_v1.allocation WHERE external_ref = 'order-17'")
    assert {row["allocation_id"] for row in rows} == ids
    await world.release(ids.pop())


async def test_lag_is_alarmed_once_an_episode_and_opens_no_run_of_its_own(world: World) -> None:
    await drained(world)
    before = await audit(world, SETTLED)
    async with world.without_stream(EVENTS):
        # given an event that cannot go out
        name = await world.account()

        # when it has waited too long, then there is one alarm
        async def alarmed() -> Any:
            return "outbox.lag_detected" in (await audit(world, SETTLED))[len(before) :]

        await until(alarmed, "the lag is alarmed")
        await world.account()
    await drained(world)

    # then the end of the episode is audited too
    async def over() -> Any:
        return "outbox.redispatched" in (await audit(world, SETTLED))[len(before) :]

    await until(over, "the episode is over")
    alarms = [a for a in (await audit(world, SETTLED))[len(before) :] if a.startswith("outbox.")]
    assert alarms == ["outbox.lag_detected", "outbox.redispatched"]
    (stuck,) = await outbox(world, f"account:{name}")
    assert len(await runs(world, f"outbox:{stuck['outbox_id']}")) == 1


async def test_a_lagging_outbox_is_announced_as_a_degraded_control_plane(world: World) -> None:
    await drained(world)
    async with world.without_stream(EVENTS):
        await world.account()
        before = len(await audit(world, SETTLED))

        async def alarmed() -> Any:
            return "outbox.lag_detected" in (await audit(world, SETTLED))[before:]

        await until(alarmed, "the lag is alarmed")

    async def announced() -> Any:
        names = [m["subject"].removeprefix("amends.v1.evt.control_plane.") for m in await world.stored(EVENTS)]
        return [n for n in names if n.startswith("runtime.")] == ["runtime.degraded", "runtime.recovered"]

    await until(announced, "the control plane was degraded and has recovered")


async def test_an_operator_makes_the_missing_streams_again(world: World) -> None:
    # given no stream, and an event that waits
    await drained(world)
    await world.delete_stream(EVENTS)
    try:
        name = await world.account()
        # when
        await world.ok("ops.streams.create", {"reason": "the broker was set up anew"})
        # then
        await until(lambda: world.has_stream(EVENTS), "the stream is there again")
        assert await events(world, f"account:{name}") == ["open"]
    finally:
        if not await world.has_stream(EVENTS):
            await world.restore_stream(EVENTS)


async def test_what_a_wiped_stream_has_lost_is_sent_again_at_an_operators_word(world: World) -> None:
    # given events that were published into a stream that was wiped
    name = await world.account()
    entity = f"account:{name}"
    assert await events(world, entity) == ["open"]
    (row,) = await outbox(world, entity)
    await drained(world)
    await world.delete_stream(EVENTS)
    await world.restore_stream(EVENTS)
    assert row["outbox_id"] not in await copies(world)
    # when; then
    asked = {"since_us": row["created_us"], "reason": "disk lost"}
    answer = await world.ok("ops.outbox.republish", asked)
    assert (answer["complete"], answer["stored"] >= 1, answer["refused"]) == (True, True, 0)
    # then it is there again, the same event under another message id
    found = [message for message in await world.stored(EVENTS) if message["body"]["event_id"] == row["outbox_id"]]
    assert [message["msg_id"].partition(".r")[0] for message in found] == [row["outbox_id"]]
    await drained(world)


async def test_a_purged_stream_is_filled_again_within_the_brokers_own_window_of_duplicates(world: World) -> None:
    # given an event that was just published, and a stream that is purged: the broker still knows the message ids
    name = await world.account()
    assert await events(world, f"account:{name}") == ["open"]
    await drained(world)
    (row,) = await outbox(world, f"account:{name}")
    await world.nats.jetstream().purge_stream(EVENTS)
    # when it is sent again twice
    asked = {"since_us": row["created_us"], "reason": "purged by mistake"}
    first = await world.ok("ops.outbox.republish", asked)
    second = await world.ok("ops.outbox.republish", asked)
    # then each time all of it was stored
    assert first["complete"]
    assert first["stored"] >= 1
    assert (first["duplicate"], first["refused"]) == (0, 0)
    assert second["stored"] == first["stored"]
    bodies = [m["body"] for m in await world.stored(EVENTS) if m["body"]["event_id"] == row["outbox_id"]]
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]
    # and the same key gets the same answer and sends nothing
    key = world.new_key()
    once = await world.ask("ops.outbox.republish", asked, key=key)
    again = await world.ask("ops.outbox.republish", asked, key=key)
    assert (once["data"]["stored"], again["data"]["stored"], again["duplicate"]) == (first["stored"],) * 2 + (True,)
    assert len(await world.stored(EVENTS)) == 3 * first["stored"]


async def test_a_stream_at_its_limit_is_the_buss_trouble_and_parks_nothing(world: World) -> None:
    # given a stream that is full and discards what is new
    await drained(world)
    js = world.nats.jetstream()
    config = (await js.stream_info(EVENTS)).config
    full = (await js.stream_info(EVENTS)).state.messages
    config.discard, config.max_msgs = DiscardPolicy.NEW, full
    await js.update_stream(config)
    before = len(await world.rows("SELECT 1 FROM public_v1.ops_case"))
    try:
        # when five accounts are opened, then their events wait, and nobody is called
        names = [await world.account() for _ in range(5)]
        await asyncio.sleep(1)
        states = {row["state"] for name in names for row in await outbox(world, f"account:{name}")}
        assert states == {"pending"}
        assert len(await world.rows("SELECT 1 FROM public_v1.ops_case")) == before
    finally:
        config.max_msgs = -1
        await js.update_stream(config)
    # when the limit is raised, then all go out
    await drained(world)
    for name in names:
        assert await events(world, f"account:{name}") == ["open"]
    config.discard = DiscardPolicy.OLD
    await js.update_stream(config)


async def test_a_payload_that_the_broker_refuses_is_parked_with_a_case_and_holds_nobody_else(world: World) -> None:
    # given a stream that takes small messages only, and a node whose labels make its events large
    js = world.nats.jetstream()
    config = (await js.stream_info(EVENTS)).config
    await drained(world)
    await js.update_stream(config=config, max_msg_size=3000)
    machine = await world.add_machine(ready=False)
    labels = {f"label{n}": "x" * 120 for n in range(30)}
    entity = f"node:{machine.node_id}"
    try:
        ready = {"node_id": machine.node_id, "labels": labels, "reason": "many labels"}
        await world.node_is(machine.node_id, "ready")
        await drained(world)
        await world.ok("ops.node.update", ready)
        await world.ok("ops.node.drain", {"node_id": machine.node_id, "reason": "first"})
        await world.ok("ops.node.undrain", {"node_id": machine.node_id, "reason": "second"})

        # then its event is parked, with a case, and the later one waits behind it
        async def parked() -> Any:
            return [row for row in await outbox(world, entity) if row["state"] == "parked"]

        (row,) = await until(parked, "the event is parked")
        target = f"outbox:{row['outbox_id']}"
        (case,) = await cases(world, target)
        assert (case["kind"], case["state"]) == ("outbox_poison", "open")
        assert {"ops.outbox.redispatch", "ops.outbox.skip"} == set(case["commands"])
        assert (await outbox(world, entity))[-1]["state"] == "pending"
        # and others go on
        assert await events(world, f"account:{await world.account()}") == ["open"]
    finally:
        await js.update_stream(config=config, max_msg_size=-1)
    # when the stream takes it again and an operator says so, then both go out in their order
    await settle(world, "outbox_poison", target, "ops.outbox.redispatch")
    assert await events(world, entity) == ["registered", "ready", "draining", "ready"]
    assert [c["state"] for c in await cases(world, target)] == ["resolved"]
    done = {"outbox_id": row["outbox_id"], "reason": "twice"}
    await world.refused("ops.outbox.skip", done, "illegal_transition")
    await all_is_well(world)
    await machine.stop()


async def test_one_event_that_alone_cannot_go_out_holds_its_own_entity_and_the_stream_goes_on(world: World) -> None:
    # given a stream that takes no events of accounts
    js = world.nats.jetstream()
    config = (await js.stream_info(EVENTS)).config
    await drained(world)
    await js.update_stream(config=config, subjects=["amends.v1.evt.allocation.>"])
    try:
        # when an account is opened and rentals come after it
        entity = f"account:{await world.account()}"
        (row,) = await outbox(world, entity)
        target = f"outbox:{row['outbox_id']}"
        requested = [await world.request(node_labels={"zone": "nowhere"}) for _ in range(3)]
        for allocation_id in requested:
            await world.release(allocation_id)

        # then theirs go out, and its own waits with a case, still tried
        async def called() -> Any:
            return [case for case in await cases(world, target) if case["state"] == "open"]

        (case,) = await until(called, "the case of the one event")
        assert case["kind"] == "outbox_poison"
        for allocation_id in requested:
            assert await events(world, f"allocation:{allocation_id}") == ["requested", "failed"]
        (row,) = await outbox(world, entity)
        assert (row["state"], row["attempts"] >= 3) == ("pending", True)
    finally:
        await js.update_stream(config=config)
    # when the stream takes it, then it goes out by itself and one run says so
    await drained(world)
    assert await events(world, entity) == ["open"]
    run = await ended_run(world, target, "R01")
    assert run.outcome == "recovered"
    assert run.shape() == [f"compensate·external_call·{target}·success"]
    assert run.compensations[0]["metadata"]["released"] == 0
    assert [each["state"] for each in await cases(world, target)] == ["resolved"]
    await all_is_well(world)


async def test_an_event_acknowledged_while_others_are_refused_is_not_tried_again(world: World) -> None:
    # given a stream that takes the events of allocations, slowly, and refuses those of accounts at once
    js = world.nats.jetstream()
    config = (await js.stream_info(EVENTS)).config
    await drained(world)
    await js.update_stream(config=config, subjects=["amends.v1.evt.allocation.>"])
    names = [world.new_name("acct") for _ in range(30)]
    # when both happen side by side
    try:
        made = await asyncio.gather(
            *(each for name in names for each in (world.request(node_labels={"zone": "nowhere"}), world.account(name)))
        )
        requested = [made[place] for place in range(0, len(made), 2)]
        await asyncio.gather(*(world.release(allocation_id) for allocation_id in requested))
    finally:
        await js.update_stream(config=config)
    # then no event of either is lost or out of order
    await drained(world)
    for allocation_id in requested:
        assert await events(world, f"allocation:{allocation_id}") == ["requested", "failed"]
    for name in names:
        assert await events(world, f"account:{name}") == ["open"]


async def test_a_killed_nats_comes_back_and_everything_drains(world: World, machine: Machine) -> None:
    # given set-ups under way
    machine.fault("key-install", "delay", seconds=0.3)
    await drained(world)
    allocation_id = await world.request(node_id=machine.node_id)
    pid = world.nats_pid()
    # when the broker is killed
    os.kill(pid, signal.SIGKILL)
    # then the rental goes on without it, and the runtime starts it again
    await world.allocation_is(allocation_id, "active")

    async def back() -> bool:
        return world.nats.is_connected and world.nats_pid() != pid

    await until(back, "NATS is back")
    # and all events go out, once, in order, in the stream that was there
    await drained(world)
    assert await events(world, f"allocation:{allocation_id}") == ["requested", "provisioning", "activating", "active"]
    # and nobody was judged for our own outage
    assert "node.suspect" not in await audit(world, f"node:{machine.node_id}")
    await world.release(allocation_id)
    await world.cleaned(allocation_id)
