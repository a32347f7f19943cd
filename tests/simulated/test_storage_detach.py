"""Detaches that go wrong, and the runs that tell of them (R13): whose tries they hold, and what they end with."""

import asyncio
from typing import Any

import msgspec
import pytest

from supervisors.simulation.storage_stories import attach, rented
from supervisors.simulation.world import Running, World
from tests.simulated.storage import access, cases, outcomes, play, undone


async def _given_up(running: Running) -> str:
    """An attachment that could not be unmounted."""
    attachment = await attach(running, await rented(running))
    running.world.machine("n1").break_next("unmount", "busy", 999)
    await running.ask("cmd.attachment.detach", "detach", attachment_id=attachment)
    await running.until(lambda: running.state("attachment", attachment) == "detach_failed")
    return attachment


async def _mounted_and_lost_sight_of(running: Running, allocation: str) -> str:
    """An attachment that failed since its node fell silent in the middle of the mount, which is there."""
    machine = running.world.machine("n1")
    machine.break_next("mount", "lose", 99)
    wish = {"allocation_id": allocation, "namespace_id": "data", "mode": "rw", "mount_path": "/mnt/data"}
    attachment = str((await running.ask("cmd.attachment.attach", "attach", **wish))["attachment"]["attachment_id"])
    await running.until(lambda: attachment in machine.mounts.mounted)
    machine.beats = False
    await _comes_to(running, attachment, "failed")
    return attachment


async def _retry(running: Running, attachment: str, key: str = "retry") -> None:
    await running.ask("ops.attachment.retry_detach", key, attachment_id=attachment, reason="it has ended")


async def _comes_to(running: Running, attachment: str, state: str) -> None:
    await running.until(lambda: running.state("attachment", attachment) == state)


def acted(world: World, row: str) -> list[list[tuple[str, str, str]]]:
    """Of each run of the row (action type, kind of the target, outcome) of its actions, in their order."""
    tables = world.database.tables.rows
    runs = [run for run in tables["recovery_run"].values() if run["matrix_row"] == row]
    actions = sorted(tables["recovery_action"].values(), key=lambda each: each["sequence"])
    return [
        [
            (each["action_type"], each["target_ref"].partition(":")[0], each["outcome"])
            for each in actions
            if each["recovery_trace_id"] == run["recovery_trace_id"]
        ]
        for run in runs
    ]


def metadata(world: World, action_type: str) -> list[dict[str, Any]]:
    rows = world.database.tables.rows["recovery_action"].values()
    return [msgspec.json.decode(row["metadata"]) for row in rows if row["action_type"] == action_type]


FAILED = ("retry", "node", "failure")
GIVEN_UP = [("compensation", "attachment", "failure"), ("escalate", "attachment", "success")]
UNDONE = [("compensation", "node", "success"), ("compensation", "provider", "success")]
TAKEN_OVER = ("fallback", "attachment", "success")


def test_a_retry_that_fails_has_all_its_tries_in_its_own_run_which_ends_with_the_case_open_again() -> None:
    async def tell(running: Running) -> None:
        attachment = await _given_up(running)
        await _retry(running, attachment)
        await running.until(lambda: running.state("attachment", attachment) == "detaching")
        await _comes_to(running, attachment, "detach_failed")
        assert cases(running.world, "detach_failed") == ["open"]
        running.world.machine("n1").mend()
        await _retry(running, attachment, "again")
        await _comes_to(running, attachment, "detached")
        await running.quiet()

    world = play(tell, unmount_tries=3)
    assert acted(world, "R13") == [[*[FAILED] * 3, *GIVEN_UP], [*[FAILED] * 3, *GIVEN_UP], UNDONE]
    assert outcomes(world, "R13") == ["failed", "failed", "recovered"]


def test_a_retry_that_succeeds_late_records_what_it_undid_in_its_own_run() -> None:
    async def tell(running: Running) -> None:
        attachment = await _given_up(running)
        machine = running.world.machine("n1")
        machine.mend()
        machine.break_next("unmount", "busy", 1)
        await _retry(running, attachment)
        await _comes_to(running, attachment, "detached")
        await running.quiet()

    world = play(tell, unmount_tries=2)
    assert acted(world, "R13") == [[*[FAILED] * 2, *GIVEN_UP], [FAILED, *UNDONE]]
    assert outcomes(world, "R13") == ["failed", "recovered"]
    first, _ = (run for run in world.database.tables.rows["recovery_run"].values() if run["matrix_row"] == "R13")
    (said,) = [each for each in metadata(world, "compensation") if "earlier_run" in each]
    assert said["earlier_run"] == first["recovery_id"]
    assert said["supersedes"]


def _run_of(world: World, row: str, trigger_type: str) -> str:
    runs = world.database.tables.rows["recovery_run"].values()
    return [
        str(run["recovery_id"])
        for run in runs
        if (run["matrix_row"], run["trigger_type"]) == (row, trigger_type) and run["entity"].startswith("attachment:")
    ][-1]


def test_a_retry_that_an_acknowledgement_overtakes_says_by_which_run_it_was_taken_over() -> None:
    async def tell(running: Running) -> None:
        attachment = await _given_up(running)
        machine = running.world.machine("n1")
        machine.up = False
        await running.until(lambda: running.state("node", "n1") == "offline")
        await _retry(running, attachment)
        await _comes_to(running, attachment, "detaching")
        await running.ask("ops.attachment.acknowledge_node_lost", "gone", attachment_id=attachment, reason="it burned")
        await _comes_to(running, attachment, "detached")
        machine.up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    world = play(tell, unmount_tries=2)
    ended = acted(world, "R13")
    assert ended[1] == [TAKEN_OVER]
    assert ended[2] == [("compensation", "provider", "success"), ("compensation", "node", "success")]
    assert [each["taken_over_by"] for each in metadata(world, "fallback")] == [_run_of(world, "R13", "policy")]


@pytest.mark.parametrize("keeps", [False, True])
def test_a_detach_that_the_loss_of_its_node_overtakes_ends_as_the_loss_does(*, keeps: bool) -> None:
    async def tell(running: Running) -> None:
        attachment = await attach(running, await rented(running))
        machine = running.world.machine("n1")
        machine.break_next("unmount", "busy", 1)
        await running.ask("cmd.attachment.detach", "detach", attachment_id=attachment)
        runs = running.world.database.tables.rows["recovery_run"]
        await running.until(lambda: any(run["matrix_row"] == "R13" for run in runs.values()))
        if keeps:
            running.world.provider().break_next("revoke", "keep", 99)
        machine.up = False
        await _comes_to(running, attachment, "detach_failed" if keeps else "detached")
        if keeps:
            running.world.provider().mend()
            await running.ask(
                "ops.attachment.acknowledge_node_lost", "gone", attachment_id=attachment, reason="it burned"
            )
            await _comes_to(running, attachment, "detached")
        machine.up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    world = play(tell, unmount_backoff_ms=(5000, 5000))
    if keeps:
        assert acted(world, "R13")[0] == [FAILED, ("escalate", "attachment", "success")]
        assert outcomes(world, "R13") == ["failed", "recovered"]
        return
    assert acted(world, "R13") == [[FAILED, TAKEN_OVER]]
    assert [each["taken_over_by"] for each in metadata(world, "fallback")] == [_run_of(world, "R08", "failure")]


def test_an_owed_unmount_that_goes_with_its_node_was_taken_over_by_that() -> None:
    """Its own run stood degraded with an unmount in part; it says that this was settled otherwise."""

    async def tell(running: Running) -> None:
        machine = running.world.machine("n1")
        attachment = await _mounted_and_lost_sight_of(running, await rented(running))
        machine.up = False
        await running.until(lambda: running.state("node", "n1") == "offline")
        await running.ask("ops.attachment.acknowledge_node_lost", "gone", attachment_id=attachment, reason="it burned")
        await running.until(lambda: not running.core.pool.attachments.debts)
        machine.up = machine.beats = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    world = play(tell, mount_timeout_ms=900)
    assert acted(world, "R12")[0][-1] == ("fallback", "node", "success")
    assert undone(world, "R13") == [("cancel·side_effect", "node", "success")]


# --- what the rental and its node say meanwhile -----------------------------------------------------------------


def _says(running: Running, allocation: str) -> bool:
    return bool(running.body("allocation", allocation).get("cleanup_pending"))


def test_a_rental_has_a_pending_cleanup_from_its_end_on_for_as_long_as_a_mount_is_owed() -> None:
    async def tell(running: Running) -> None:
        attachment = await _given_up(running)
        allocation = running.body("attachment", attachment)["allocation_id"]
        await running.quiet()
        assert (running.state("allocation", allocation), _says(running, allocation)) == ("active", False)
        await running.release(allocation, "release")
        await running.until(lambda: running.state("allocation", allocation) == "released")
        await running.until(lambda: not running.body("allocation", allocation).get("owing"))
        assert _says(running, allocation)
        running.world.machine("n1").mend()
        await _retry(running, attachment)
        await _comes_to(running, attachment, "detached")
        await running.quiet()
        assert not _says(running, allocation)

    play(tell, unmount_tries=2)


def test_a_mount_that_is_owed_after_a_failed_attach_is_a_pending_cleanup_of_its_rental_too() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        machine = running.world.machine("n1")
        attachment = await _mounted_and_lost_sight_of(running, allocation)
        machine.break_next("unmount", "busy", 999)
        machine.beats = True
        await running.until(lambda: cases(running.world, "detach_failed") == ["open"])
        await running.release(allocation, "release")
        await running.until(lambda: running.state("allocation", allocation) == "released")
        await running.until(lambda: not running.body("allocation", allocation).get("owing"))
        assert _says(running, allocation)
        machine.mend()
        await _retry(running, attachment)
        await running.until(lambda: not running.core.pool.attachments.debts)
        await running.quiet()
        assert not _says(running, allocation)

    play(tell, mount_timeout_ms=900, suspect_after_ms=500, offline_after_ms=60_000, unmount_tries=2)


def test_access_that_the_provider_keeps_after_a_good_unmount_is_no_pending_cleanup() -> None:
    async def tell(running: Running) -> None:
        attachment = await attach(running, await rented(running))
        allocation = running.body("attachment", attachment)["allocation_id"]
        running.world.provider().break_next("revoke", "keep", 99)
        await running.release(allocation, "release")
        await _comes_to(running, attachment, "detach_failed")
        await running.until(lambda: running.state("allocation", allocation) == "released")
        await running.quiet()
        assert not _says(running, allocation)
        running.world.provider().mend()
        await _retry(running, attachment)
        await _comes_to(running, attachment, "detached")
        await running.quiet()

    play(tell)


# --- the node is lost, and comes back -----------------------------------------------------------------------------


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("keeps", [False, True])
def test_a_lost_node_has_no_access_by_a_mount_that_was_given_up_which_stays_given_up(
    *, released: bool, keeps: bool
) -> None:
    async def tell(running: Running) -> None:
        attachment = await _given_up(running)
        machine, allocation = running.world.machine("n1"), running.body("attachment", attachment)["allocation_id"]
        if released:
            await running.release(allocation, "release")
            await running.until(lambda: running.state("allocation", allocation) == "released")
            await running.quiet()
        assert access(running)
        if keeps:
            running.world.provider().break_next("revoke", "keep", 99)
        machine.up = False
        await running.until(lambda: running.state("node", "n1") == "offline")
        await running.until(lambda: outcomes(running.world, "R08")[-1] == ("failed" if keeps else "recovered"))
        assert bool(access(running)) is keeps
        assert running.state("attachment", attachment) == "detach_failed"
        assert running.core.pool.is_dirty("n1")
        machine.mend()
        running.world.provider().mend()
        machine.up = True
        await running.until(lambda: running.state("node", "n1") != "offline")
        await _retry(running, attachment)
        await _comes_to(running, attachment, "detached")
        await running.until(lambda: running.state("node", "n1") == "ready")
        assert not access(running)
        await running.quiet()

    world = play(tell, unmount_tries=2)
    (own,) = [
        actions
        for actions in acted(world, "R08")
        if ("compensation", "provider", "failure" if keeps else "success") in actions
    ]
    assert own[1:] == ([("escalate", "attachment", "success")] if keeps else [])
    assert outcomes(world, "R13") == ["failed", "recovered"]


def test_a_retry_of_a_rental_that_is_over_ends_with_the_loss_of_its_node() -> None:
    async def tell(running: Running) -> None:
        attachment = await _given_up(running)
        allocation = running.body("attachment", attachment)["allocation_id"]
        await running.release(allocation, "release")
        await running.until(lambda: running.state("allocation", allocation) == "released")
        await running.quiet()
        await asyncio.sleep(5)  # long enough for its loss to be none of the rental's business
        await _retry(running, attachment)
        running.world.machine("n1").up = False
        await _comes_to(running, attachment, "detached")
        assert not access(running)
        running.world.machine("n1").up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    world = play(tell, unmount_tries=9, unmount_backoff_ms=(60_000, 60_000))
    assert acted(world, "R13")[1][-1] == TAKEN_OVER


def test_an_unmount_that_was_asked_under_an_epoch_of_before_the_loss_is_no_try() -> None:
    async def tell(running: Running) -> None:
        machine = running.world.machine("n1")
        await _mounted_and_lost_sight_of(running, await rented(running))
        machine.up = False
        await running.until(lambda: running.state("node", "n1") == "offline")
        machine.up = machine.beats = True
        await running.until(lambda: not machine.mounts.mounted)
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    world = play(tell, mount_timeout_ms=900, unmount_tries=1)
    assert acted(world, "R12") == [
        [("compensation", "provider", "success"), ("compensation", "node", "partial"), UNDONE[0]]
    ]


# --- what is said of it -------------------------------------------------------------------------------------------


def test_an_agent_that_sees_no_mount_any_more_is_believed_whatever_its_unmount_came_to() -> None:
    async def tell(running: Running) -> None:
        attachment = await attach(running, await rented(running))
        running.world.machine("n1").break_next("unmount", "fail_unmounted", 1)
        await running.ask("cmd.attachment.detach", "detach", attachment_id=attachment)
        await _comes_to(running, attachment, "detached")
        await running.quiet()

    world = play(tell, unmount_tries=1)
    assert outcomes(world, "R13") == []


def test_a_failed_mount_whose_undo_is_given_up_says_why_that_was() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        machine = running.world.machine("n1")
        machine.break_next("probe_mount", "stale", 1)
        machine.break_next("unmount", "busy", 999)
        attachment = await attach(running, allocation, "attach", "detach_failed")
        assert running.body("attachment", attachment)["reason"] == "busy"
        (case,) = [
            each for each in running.world.database.tables.rows["ops_case"].values() if each["kind"] == "detach_failed"
        ]
        assert msgspec.json.decode(case["evidence"])["code"] == "busy"
        machine.mend()
        await _retry(running, attachment)
        await _comes_to(running, attachment, "detached")
        assert running.body("attachment", attachment).get("reason") is None
        await running.quiet()

    play(tell, unmount_tries=2)


def test_what_ended_with_its_node_says_so() -> None:
    async def tell(running: Running) -> None:
        attachment = await attach(running, await rented(running))
        running.world.machine("n1").up = False
        await _comes_to(running, attachment, "detached")
        assert running.body("attachment", attachment)["reason"] == "node_lost"
        running.world.machine("n1").up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    play(tell)


def test_a_revoke_that_fails_after_a_good_unmount_is_the_failure_that_its_run_names() -> None:
    async def tell(running: Running) -> None:
        attachment = await attach(running, await rented(running))
        running.world.provider().break_next("revoke", "keep", 99)
        await running.ask("cmd.attachment.detach", "detach", attachment_id=attachment)
        await _comes_to(running, attachment, "detach_failed")
        running.world.provider().mend()
        await _retry(running, attachment)
        await _comes_to(running, attachment, "detached")
        await running.quiet()

    world = play(tell)
    tables = world.database.tables.rows
    run = next(run for run in tables["recovery_run"].values() if run["matrix_row"] == "R13")
    (failure,) = [each for each in tables["failure"].values() if f"failure:{each['failure_id']}" == run["trigger_ref"]]
    assert (failure["code"], failure["component"]) == ("still_granted", "provider.verify")
    assert failure["recovery_trace_id"] == run["recovery_trace_id"]
