"""Storage when its node is lost (R08, R12, R13), and above its quota (R14)."""

import asyncio

import pytest

from supervisors.simulation.storage_stories import QUOTA, attach, holds, rented
from supervisors.simulation.world import Running
from tests.simulated.storage import access, cases, once_active, outcomes, play, undone

# --- the node is lost -------------------------------------------------------------------------------------------


def test_a_lost_node_loses_its_access_first_and_the_mount_when_it_is_back() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        other = await once_active(running, "other", "n2")
        machine = running.world.machine("n1")
        running.world.provider().break_next("revoke", "hang", 1)
        machine.up = False
        await running.until(lambda: running.state("attachment", attachment) == "detaching")
        busy = await attach(running, other, "busy")
        assert running.body("attachment", busy)["reason"] == "namespace_busy"
        await running.until(lambda: running.state("attachment", attachment) == "detached")
        assert not access(running)
        await attach(running, other, "free")
        machine.up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        assert attachment not in machine.mounts.mounted
        await running.quiet()

    world = play(tell)
    assert ("reverse·external_call", "provider", "success") in undone(world, "R08")
    # and each failure names the one it follows from, a step further away
    tables = world.database.tables.rows
    runs = {
        run["entity"].partition(":")[0]: run for run in tables["recovery_run"].values() if run["matrix_row"] == "R08"
    }
    failures = {f"failure:{each['failure_id']}": each for each in tables["failure"].values()}
    chain = [(kind, runs[kind]["trigger_ref"]) for kind in ("node", "allocation", "attachment")]
    assert [failures[ref]["propagation_hop"] for _, ref in chain] == [0, 1, 2]
    assert [failures[ref]["cause_ref"] for _, ref in chain[1:]] == [ref for _, ref in chain[:-1]]


def test_access_that_the_provider_keeps_of_a_lost_node_needs_a_person() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        running.world.provider().break_next("revoke", "keep", 99)
        running.world.machine("n1").up = False
        await running.until(lambda: running.state("attachment", attachment) == "detach_failed")
        running.world.provider().mend()
        await running.ask("ops.attachment.acknowledge_node_lost", "gone", attachment_id=attachment, reason="it burned")
        await running.until(lambda: running.state("attachment", attachment) == "detached")
        running.world.machine("n1").up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        assert not running.world.machine("n1").mounts.mounted
        await running.quiet()

    world = play(tell)
    assert cases(world, "detach_failed") == ["resolved"]


def test_a_mount_that_was_given_up_before_its_node_was_lost_is_unmounted_under_the_nodes_new_epoch() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        machine = running.world.machine("n1")
        machine.break_next("unmount", "busy", 999)
        await running.ask("cmd.attachment.detach", "detach", attachment_id=attachment)
        await running.until(lambda: running.state("attachment", attachment) == "detach_failed")
        machine.up = False
        await running.until(lambda: running.state("node", "n1") == "offline")
        machine.up = True
        await running.until(lambda: running.state("node", "n1") != "offline")
        machine.mend()
        await running.ask("ops.attachment.retry_detach", "retry", attachment_id=attachment, reason="it has ended")
        await running.until(lambda: running.state("attachment", attachment) == "detached")
        await running.until(lambda: running.state("node", "n1") == "ready")
        assert not machine.mounts.mounted
        await running.quiet()

    play(tell, unmount_tries=2)


@pytest.mark.parametrize("word", ["retry", "retire"])
def test_an_unmount_that_is_owed_after_a_failed_mount_has_a_way_out(word: str) -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        machine = running.world.machine("n1")
        machine.break_next("mount", "lose", 99)
        data = await running.ask("cmd.attachment.attach", "attach", allocation_id=allocation, namespace_id="data",
                                 mode="rw", mount_path="/mnt/data")  # fmt: skip
        attachment = data["attachment"]["attachment_id"]
        await running.until(lambda: attachment in machine.mounts.mounted)
        machine.beats = False
        await running.until(lambda: running.state("attachment", attachment) == "failed")
        machine.break_next("unmount", "busy", 999)
        machine.beats = True
        await running.until(lambda: cases(running.world, "detach_failed") == ["open"])
        await running.release(allocation, "release")
        await running.until(lambda: running.state("allocation", allocation) == "released")
        machine.mend()
        if word == "retry":
            await running.ask("ops.attachment.retry_detach", "retry", attachment_id=attachment, reason="it ended")
        else:
            machine.mounts.reboot()
            await running.ask("ops.node.quarantine", "out", node_id="n1", reason="scrapped")
            await running.ask("ops.node.retire", "retire", node_id="n1", reason="scrapped", acknowledge_lost=True)
        await running.until(lambda: cases(running.world, "detach_failed") == ["resolved"])
        await running.quiet()
        assert not running.core.pool.attachments.debts

    play(tell, mount_timeout_ms=900, suspect_after_ms=500, offline_after_ms=60_000, unmount_tries=2)


def test_a_writer_whose_grant_fails_beside_a_reader_leaves_nothing_and_the_next_one_is_let_in() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        await attach(running, allocation, "reader", mode="ro")
        running.world.provider().break_next("grant", "partial", 99)
        first = await attach(running, allocation, "first", mount_path="/mnt/first")
        assert running.state("attachment", first) == "failed"
        running.world.provider().mend()
        second = await attach(running, allocation, "second", mount_path="/mnt/second")
        assert running.state("attachment", second) == "attached"
        await running.quiet()

    world = play(tell)
    assert undone(world, "R11") == [("reverse·external_call", "provider", "success")]


def test_a_retry_that_waits_for_a_node_that_is_gone_may_be_given_up() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        machine = running.world.machine("n1")
        machine.break_next("unmount", "busy", 999)
        await running.ask("cmd.attachment.detach", "detach", attachment_id=attachment)
        await running.until(lambda: running.state("attachment", attachment) == "detach_failed")
        machine.up = False
        await running.until(lambda: running.state("node", "n1") == "offline")
        await running.ask("ops.attachment.retry_detach", "retry", attachment_id=attachment, reason="it ended")
        await asyncio.sleep(5)
        assert running.state("attachment", attachment) == "detaching"
        await running.ask("ops.attachment.acknowledge_node_lost", "gone", attachment_id=attachment, reason="it burned")
        await running.until(lambda: running.state("attachment", attachment) == "detached")
        machine.up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    world = play(tell, unmount_tries=2)
    assert not world.provider().access
    assert None not in outcomes(world, "R13")


def test_a_loss_in_the_middle_of_a_detach_ends_both_runs() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        machine = running.world.machine("n1")
        machine.break_next("unmount", "busy", 1)
        await running.ask("cmd.attachment.detach", "detach", attachment_id=attachment)
        runs = running.world.database.tables.rows["recovery_run"]
        await running.until(lambda: any(run["matrix_row"] == "R13" for run in runs.values()))
        machine.up = False
        await running.until(lambda: running.state("attachment", attachment) == "detached")
        machine.up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    world = play(tell, unmount_backoff_ms=(5000, 5000))
    assert None not in outcomes(world, "R13")


def test_the_mount_of_a_lost_node_is_on_the_record_of_its_return() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        machine = running.world.machine("n1")
        machine.up = False
        await running.until(lambda: running.state("attachment", attachment) == "detached")
        machine.up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    world = play(tell)
    found = [each["target_ref"] for each in world.database.tables.rows["compensation"].values()]
    assert any(target.startswith("node:n1/mount:attach_") for target in found)


# --- R14: quota -------------------------------------------------------------------------------------------------


def test_around_its_quota_nothing_is_blocked_and_far_above_it_is_at_once() -> None:
    async def tell(running: Running) -> None:
        await rented(running)
        provider, stored = running.world.provider(), holds(running.world, "data")

        def seen() -> int:
            return len([op for op, _ in provider.calls if op == "usage"])

        async def reads(*percent: int) -> bool:
            for each in percent:
                stored.used_bytes, before = QUOTA * each // 100, seen()
                await running.until(lambda: seen() > before)  # noqa: B023
                await running.quiet()
            return bool(running.body("namespace", "data").get("flag"))

        assert not await reads(101, 99, 101, 99)
        assert await reads(111)
        assert await reads(96, 95, 96, 95)
        assert not await reads(95, 95)
        assert await reads(101, 101)
        assert not await reads(0, 0)

    world = play(tell)
    assert undone(world, "R14") == [("compensate·state_change", "namespace", "success")] * 2
    assert outcomes(world, "R14") == ["recovered", "recovered"]


def test_a_provider_that_measures_seldom_is_read_as_often_as_it_is_asked_and_an_older_read_is_none() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        stored = holds(running.world, "data")
        await running.until(lambda: running.body("namespace", "data").get("capabilities") is not None)
        stored.as_of_us = running.body("namespace", "data")["usage"]["as_of_us"]
        stored.used_bytes = QUOTA + 1  # twice the same measurement: two reads above it
        await running.until(lambda: running.body("namespace", "data").get("flag") == "over")
        stored.used_bytes, stored.as_of_us = 0, None
        await running.until(lambda: not running.body("namespace", "data").get("flag"))
        stored.as_of_us = 1  # its clock was set back
        await running.until(lambda: running.body("namespace", "data").get("flag") == "unknown")
        stored.as_of_us = None
        await running.until(lambda: not running.body("namespace", "data").get("flag"))
        assert running.state("attachment", await attach(running, allocation)) == "attached"

    world = play(tell)
    events = [row["subject"].rpartition(".")[2] for row in world.database.tables.rows["outbox"].values()]
    assert events.count("quota_exceeded") == 1, "of what nobody knows it is not said"


def test_a_namespace_whose_measurement_has_no_time_can_be_attached() -> None:
    async def tell(running: Running) -> None:
        holds(running.world, "data").as_of_us = 0
        assert running.state("attachment", await attach(running, await rented(running))) == "attached"

    play(tell)


def test_a_provider_that_does_not_tell_blocks_writers_until_it_does() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        await running.until(lambda: running.body("namespace", "data").get("capabilities") is not None)
        running.world.provider().break_next("usage", "fail", 5)
        await running.until(lambda: running.body("namespace", "data").get("flag") == "unknown")
        refused = await attach(running, allocation, "rw")
        assert running.body("attachment", refused)["reason"] == "quota_blocked"
        readable = await attach(running, allocation, "ro", mode="ro")
        assert running.state("attachment", readable) == "attached"
        await running.until(lambda: not running.body("namespace", "data").get("flag"))

    world = play(tell)
    assert outcomes(world, "R14") == ["recovered"]
