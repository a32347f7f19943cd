"""R07 from outside: a notification never fails its cause; what cannot be sent is parked and goes out later, once."""

import time
from typing import Any

import pytest

from tests.acceptance.machine import Machine
from tests.acceptance.records import audit, ended_run, notifications, run_of, runs
from tests.acceptance.world import NOTIFICATIONS, World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
# The machines of earlier tests are gone for good: their loss would be told in the middle of what is looked at here.
CONFIG = "[timing]\noffline_after_ms = 3600000\n"


async def notification(world: World, notification_id: str) -> dict[str, Any]:
    """Its row."""
    return await world.one("SELECT * FROM public_v1.notification WHERE notification_id = $1", notification_id)


async def reaches(world: World, notification_id: str, state: str) -> dict[str, Any]:
    """Wait for a state of the notification."""

    async def check() -> Any:
        row = await notification(world, notification_id)
        return row if row["state"] == state else None

    row: dict[str, Any] = await until(check, f"{notification_id} is {state}")
    return row


async def stored(world: World, notification_id: str) -> list[dict[str, Any]]:
    """The messages of a notification in the stream."""
    return [m for m in await world.stored(NOTIFICATIONS) if m["msg_id"] == notification_id]


async def tries(world: World, notification_id: str) -> list[str]:
    """What became of each of its steps, in their order."""
    query = "SELECT state FROM step WHERE entity = $1 ORDER BY step_id"
    return [row["state"] for row in await world.rows(query, f"notification:{notification_id}")]


async def released_unheard(world: World, machine: Machine) -> tuple[str, str]:
    """An allocation of an account of its own, released while nobody can be told; with its parked notification."""
    account_id = await world.account()
    allocation_id = await world.rent(account_id, node_id=machine.node_id)
    await reaches(world, (await notifications(world, f"allocation:{allocation_id}"))[0]["notification_id"], "sent")
    await world.delete_stream(NOTIFICATIONS)
    await world.release(allocation_id)
    await world.cleaned(allocation_id)
    told = (await notifications(world, f"allocation:{allocation_id}"))[-1]
    assert told["kind"] == "allocation.released"
    await reaches(world, told["notification_id"], "parked")
    return allocation_id, told["notification_id"]


async def test_a_notification_names_what_happened_and_is_sent_once(world: World, machine: Machine) -> None:
    account_id = await world.account()
    allocation_id = await world.rent(account_id, node_id=machine.node_id)
    accepted = (await world.release(allocation_id))["accepted_us"]
    await world.cleaned(allocation_id)
    entity = f"allocation:{allocation_id}"
    active, released = await notifications(world, entity)
    body: dict[str, Any] = {}
    for row in (active, released):
        sent = await reaches(world, row["notification_id"], "sent")
        assert (sent["attempts"], sent["audience"], sent["account_id"]) == (1, "account", account_id)
        (message,) = await stored(world, row["notification_id"])
        assert message["subject"] == f"amends.v1.ntf.account.{account_id}.{row['kind']}"
        body = message["body"]
        assert (body["kind"], body["notification_id"], body["late"]) == (row["kind"], row["notification_id"], False)
        assert (body["account_id"], body["entity"], body["state"]) == (account_id, entity, row["kind"].split(".")[1])
    assert body["stopped_us"] == accepted
    assert await runs(world, f"notification:{released['notification_id']}") == []


async def test_a_release_nobody_can_be_told_of_is_over_and_told_late(world: World, machine: Machine) -> None:
    # given no stream for notifications, when an allocation is released, then it is released normally
    allocation_id, ntf_id = await released_unheard(world, machine)
    try:
        assert (await world.allocation(allocation_id))["state"] == "released"
        assert await runs(world, f"allocation:{allocation_id}") == []
        # and its notification is parked when its tries are spent
        row = await notification(world, ntf_id)
        assert (row["attempts"], row["sent_us"]) == (3, None)
        target = f"notification:{ntf_id}"
        run = await run_of(world, target, "R07")
        assert run.shape() == [f"compensate·external_call·{target}·partial"]
        assert run.kinds() == [*["retry·failure"] * 3, "compensation·partial"]
        assert (run.outcome, run.row["ended_at"]) == ("degraded", None)
        # and found by a query
        listed = await world.ok("qry.notification.list", {"state": "parked"})
        assert [item["notification_id"] for item in listed["items"]] == [ntf_id]
        # while the stream stays away it adds no further record
        waited = time.monotonic() + 1.0
        while time.monotonic() < waited:
            assert (await reaches(world, ntf_id, "parked"))["attempts"] == 3
        again = await run_of(world, target, "R07")
        assert len(again.actions) == len(run.actions)
        # and what probes the bus is one intent, however often it is tried
        assert await tries(world, ntf_id) == ["failed"] * 3 + ["intended"]
        assert not await world.has_stream(NOTIFICATIONS)
    finally:
        await world.restore_stream(NOTIFICATIONS)
    # when the stream is back, then it goes out once, and says that it is late
    row = await reaches(world, ntf_id, "sent")
    assert row["sent_us"] > row["created_us"]
    (message,) = await stored(world, ntf_id)
    assert (message["body"]["late"], message["body"]["state"]) == (True, "released")
    run = await ended_run(world, target, "R07")
    assert run.shape() == [f"compensate·external_call·{target}·{end}" for end in ("partial", "success")]
    assert run.supersedes() == [None, 0]
    assert run.outcome == "recovered"
    assert await tries(world, ntf_id) == ["failed"] * 3 + ["done"]


async def test_all_that_was_parked_goes_out_when_the_stream_is_back(world: World) -> None:
    # given many failed allocations nobody could be told of
    accounts = [await world.account() for _ in range(12)]
    async with world.without_stream(NOTIFICATIONS):
        requested = [await world.request(account, node_labels={"zone": "nowhere"}) for account in accounts]
        for allocation_id in requested:
            await world.release(allocation_id)
        told = [(await notifications(world, f"allocation:{each}"))[0]["notification_id"] for each in requested]
        for ntf_id in told:
            await reaches(world, ntf_id, "parked")
    # then each is sent once
    for ntf_id in told:
        await reaches(world, ntf_id, "sent")
    for ntf_id in told:
        assert len(await stored(world, ntf_id)) == 1
        assert (await ended_run(world, f"notification:{ntf_id}", "R07")).outcome == "recovered"


async def test_a_bus_that_is_back_before_the_tries_are_spent_needs_no_compensation(world: World) -> None:
    # given a stream that is away for one try only
    account_id = await world.account()
    allocation_id = await world.request(account_id, node_labels={"zone": "nowhere"})
    async with world.without_stream(NOTIFICATIONS):
        await world.release(allocation_id)
        (told,) = await notifications(world, f"allocation:{allocation_id}")

        async def tried() -> Any:
            return (await notification(world, told["notification_id"]))["attempts"] >= 1

        await until(tried, "it was tried")
    # then whether it was parked or not, its run ends well and it stands in the stream once
    row = await reaches(world, told["notification_id"], "sent")
    run = await ended_run(world, f"notification:{told['notification_id']}", "R07")
    assert run.outcome == "recovered"
    assert len(await stored(world, told["notification_id"])) == 1
    if row["attempts"] <= 3:
        assert run.shape() == []
        assert run.kinds()[-1] == "retry·success"


async def test_an_operator_may_have_a_parked_one_tried_again(world: World, machine: Machine) -> None:
    # given a parked notification, when an operator has it tried again while the stream is still away
    _, ntf_id = await released_unheard(world, machine)
    try:
        await world.ok("ops.notification.redispatch", {"notification_id": ntf_id, "reason": "customer asks"})

        # then it is parked again, one try later
        async def parked_again() -> Any:
            (run,) = await runs(world, f"notification:{ntf_id}", "R07")
            tried = run.kinds().count("retry·failure")
            return tried == 4 and (await notification(world, ntf_id))["state"] == "parked"

        await until(parked_again, "it is parked again")
    finally:
        await world.restore_stream(NOTIFICATIONS)
    # and it goes out when the stream is back, once
    await reaches(world, ntf_id, "sent")
    assert len(await stored(world, ntf_id)) == 1
    run = await ended_run(world, f"notification:{ntf_id}", "R07")
    assert [line.rpartition("·")[2] for line in run.shape()] == ["partial", "success"]
    # and the operator stands in the audit
    row = await world.one(
        "SELECT * FROM public_v1.audit_log WHERE target_ref = $1 AND reason = 'customer asks'", f"notification:{ntf_id}"
    )
    assert row["actor"] == "operator:local"
    sent = {"notification_id": ntf_id, "reason": "again"}
    await world.refused("ops.notification.redispatch", sent, "illegal_transition")
    await world.refused("ops.notification.cancel", sent, "illegal_transition")


async def test_an_operator_may_give_a_parked_one_up(world: World, machine: Machine) -> None:
    # given
    _, ntf_id = await released_unheard(world, machine)
    try:
        # when
        await world.ok("ops.notification.cancel", {"notification_id": ntf_id, "reason": "told by telephone"})
    finally:
        await world.restore_stream(NOTIFICATIONS)
    # then it is never sent, and its run has ended
    run = await ended_run(world, f"notification:{ntf_id}", "R07")
    assert run.outcome == "recovered"
    other = await world.request(await world.account(), node_labels={"zone": "nowhere"})
    await world.release(other)
    await reaches(world, (await notifications(world, f"allocation:{other}"))[0]["notification_id"], "sent")
    assert await stored(world, ntf_id) == []
    assert (await notification(world, ntf_id))["state"] == "cancelled"
    assert (await audit(world, f"notification:{ntf_id}"))[-1] == "notification.cancelled"
    gone = {"notification_id": ntf_id, "reason": "again"}
    await world.refused("ops.notification.cancel", gone, "illegal_transition")
    await world.refused("ops.notification.redispatch", gone, "illegal_transition")
