"""R10 to R14 from outside: a real agent mounts directories that a real provider grants, and each of these breaks."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.acceptance.console import settle
from tests.acceptance.records import all_is_well, cases, ended_run, run_of, runs
from tests.acceptance.storage import QUOTA, HandMachine, Provider, Storage, StorageMachine
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = (
    "[timing]\nmount_timeout_ms = 4000\n"  # a mount that takes a second must not end by its time while a kill is made
)


@pytest_asyncio.fixture(loop_scope="module")
async def storage(world: World) -> AsyncIterator[Storage[StorageMachine]]:
    """Ready to be attached; afterwards everything must be well."""
    provider = Provider(world, world.new_name("nfs"))
    await provider.start()
    machine = await world.enlist(StorageMachine(world, world.new_name("s")))
    made = Storage(world, provider, machine)
    await made.begin()
    yield made
    assert made.untouched(), "T5"
    if (await world.allocation(made.allocation))["state"] == "active":
        await world.release(made.allocation)
        await world.cleaned(made.allocation)
    await all_is_well(world)
    await machine.stop()
    await provider.stop()
    shutil.rmtree(provider.base)


def undone(run: Any) -> list[tuple[str, str, str]]:
    """(type, what, outcome) of a run's compensations."""
    return [(each["compensation_type"], each["compensated_action_type"], each["outcome"]) for each in run.compensations]


async def test_a_namespace_is_attached_written_to_and_detached(storage: Storage[StorageMachine]) -> None:
    # when it is attached
    row = await storage.attach()
    # then the customer reads and writes it on the machine
    assert row["state"] == "attached"
    assert storage.machine.at("/mnt/data/letter").read_text() == "dear customer"
    storage.machine.at("/mnt/data/answer").write_text("thank you")
    assert await storage.grants("granted") == 1
    # and detached nothing of it is left but what it holds
    await storage.world.ok("cmd.attachment.detach", {"attachment_id": row["attachment_id"]})
    await storage.comes_to(row["attachment_id"], "detached")
    assert not storage.machine.at("/mnt/data/letter").exists()
    assert (storage.directory / "answer").read_text() == "thank you"
    assert await storage.grants("granted", "intended") == 0
    assert await runs(storage.world, f"attachment:{row['attachment_id']}") == []


async def test_what_cannot_be_attached_fails_with_all_its_reasons_before_anybody_is_asked(
    storage: Storage[StorageMachine],
) -> None:
    # given a node that drains, and a path that is taken
    first = await storage.attach()
    await storage.world.ok("ops.node.drain", {"node_id": storage.machine.node_id, "reason": "a new disk"})
    # when one more is asked for
    row = await storage.attach("failed", mount_path="/mnt/data/more")
    # then it has failed with all of it, and one decision was taken back
    assert row["reason"] == "node_not_ready,mount_path_taken,namespace_busy"
    run = await ended_run(storage.world, f"attachment:{row['attachment_id']}", "R10")
    assert undone(run) == [("cancel", "decision", "success")]
    assert row["grant_id"] is None
    await storage.world.ok("ops.node.undrain", {"node_id": storage.machine.node_id, "reason": "it is in"})
    assert (await storage.row(first["attachment_id"]))["state"] == "attached"


async def test_a_provider_that_is_away_while_access_is_taken_back_leaves_a_drift_that_an_operator_clears(
    storage: Storage[StorageMachine],
) -> None:
    # given a provider that cannot grant and then is away
    await until(lambda: _told(storage), "the namespace is known")
    await storage.provider.stop()
    row = await storage.attach("failed")
    run = await ended_run(storage.world, f"attachment:{row['attachment_id']}", "R11")
    assert run.row["final_outcome"] == "failed"
    assert undone(run) == [("reverse", "external_call", "failure"), ("compensate", "state_change", "success")]
    assert storage.machine.node_id in (await storage.about())["drift"]
    (case,) = await cases(storage.world, f"attachment:{row['attachment_id']}")
    assert (case["kind"], case["state"]) == ("provider_drift", "open")
    # while it is so the pair is blocked, for readers too (a writer may hear that usage is unknown by now as well)
    assert (await storage.attach("failed", mode="ro"))["reason"] == "blocked_by_drift"
    # when it is back and an operator has it reconciled
    await storage.provider.start()
    await settle(storage.world, "provider_drift", f"attachment:{row['attachment_id']}", "ops.provider.reconcile")
    run = await ended_run(storage.world, f"namespace:{storage.namespace}", "R11")
    # then the drift is gone, and it can be attached
    assert undone(run) == [("reverse", "external_call", "success")]
    assert (await storage.about())["drift"] == {}
    await until(lambda: _tells_again(storage), "the provider tells what is used")
    assert (await storage.attach())["state"] == "attached"


async def _tells_again(storage: Storage[StorageMachine]) -> bool:
    return (await storage.about())["quota_flag"] is None


async def _told(storage: Storage[StorageMachine]) -> bool:
    return (await storage.about())["used_bytes"] is not None


async def test_a_mount_that_fails_is_undone_and_its_access_given_back(storage: Storage[StorageMachine]) -> None:
    storage.machine.break_mount("probe_mount", "stale")
    row = await storage.attach("failed")
    run = await ended_run(storage.world, f"attachment:{row['attachment_id']}", "R12")
    assert undone(run) == [("reverse", "side_effect", "success"), ("reverse", "external_call", "success")]
    assert not storage.machine.at("/mnt/data").is_symlink()
    assert await storage.grants("granted", "intended") == 0
    storage.machine.mount_faults.mend()
    assert (await storage.attach())["state"] == "attached", "a new try is a new attachment"


async def test_a_release_goes_on_without_a_mount_that_is_busy_and_an_operator_has_it_detached(
    storage: Storage[StorageMachine],
) -> None:
    # given a process that holds the mount
    row = await storage.attach()
    entity = f"attachment:{row['attachment_id']}"
    storage.machine.break_mount("unmount", "busy")
    # when the rental is released
    await storage.world.release(storage.allocation)
    await storage.world.allocation_is(storage.allocation, "released")
    # then the detach was given up with its holders named, the node owes it, and access stays
    await storage.comes_to(row["attachment_id"], "detach_failed")
    run = await run_of(storage.world, entity, "R13")
    assert undone(run) == [("compensate", "state_change", "failure")]
    (case,) = await cases(storage.world, entity)
    assert case["evidence"]["holders"]
    (debt,) = await storage.world.rows("SELECT * FROM public_v1.debt WHERE attachment_id = $1", row["attachment_id"])
    assert (debt["kind"], debt["node_id"]) == ("mount", storage.machine.node_id)
    assert await storage.grants("granted") == 1
    assert (await storage.world.node(storage.machine.node_id))["dirty"]
    # when it is free and an operator has it tried again
    storage.machine.mount_faults.mend()
    await settle(storage.world, "detach_failed", entity, "ops.attachment.retry_detach")
    await storage.comes_to(row["attachment_id"], "detached")
    # then nothing is owed
    newest = (await runs(storage.world, entity, "R13"))[-1]
    assert undone(newest) == [("reverse", "side_effect", "success"), ("reverse", "external_call", "success")]
    assert await storage.grants("granted", "intended") == 0
    await storage.world.cleaned(storage.allocation)


async def test_a_lost_node_loses_its_access_first_and_its_mount_when_it_is_back(
    storage: Storage[StorageMachine],
) -> None:
    row = await storage.attach()
    # when the machine is silent
    await storage.machine.stop_agent()
    await storage.machine.ssh.stop()
    await storage.world.allocation_is(storage.allocation, "failed")
    # then access has ended before anything is said of its mount
    await storage.comes_to(row["attachment_id"], "detached")
    assert await storage.grants("granted", "intended") == 0
    run = await ended_run(storage.world, f"attachment:{row['attachment_id']}", "R08")
    assert undone(run) == [("reverse", "external_call", "success")]
    assert storage.machine.at("/mnt/data").is_symlink()
    # and when it is back its mount is taken away
    await storage.machine.ssh.start()
    await storage.machine.start_agent()
    await storage.world.node_is(storage.machine.node_id, "ready")
    assert not storage.machine.at("/mnt/data").is_symlink()


async def test_a_kill_with_the_mount_task_out_mounts_once(storage: Storage[StorageMachine]) -> None:
    storage.machine.break_mount("mount", "slow", 1)
    wish = {"allocation_id": storage.allocation, "namespace_id": storage.namespace, "mode": "rw",
            "mount_path": "/mnt/data"}  # fmt: skip
    asked = await storage.world.ok("cmd.attachment.attach", wish)
    identifier = asked["attachment"]["attachment_id"]
    await storage.comes_to(identifier, "mounting")
    storage.world.kill()
    await storage.world.restart()
    row = await storage.comes_to(identifier, "attached", "failed")
    assert (row["state"], row["reason"]) == ("attached", None)
    steps = await storage.world.rows("SELECT name FROM public_v1.step WHERE entity = $1", f"attachment:{identifier}")
    assert [each["name"] for each in steps].count("agent.mount") == 1


async def test_a_late_success_of_a_mount_that_was_given_up_is_unmounted_once_more(world: World) -> None:
    # given an agent that does not answer its mount task in time
    provider = Provider(world, world.new_name("nfs"))
    await provider.start()
    machine = await world.enlist(HandMachine(world, world.new_name("h")))
    storage = Storage(world, provider, machine)
    await storage.begin()
    row = await storage.attach("failed")
    assert row["reason"] == "agent_timeout"
    (mount,) = machine.tasks("mount")
    assert len(machine.tasks("unmount")) == 1
    # when it says after all that it is mounted
    await machine.says(mount, "ok", observed={"mounted": True, "mode": "rw"})

    # then one more unmount goes out, and the state stays
    async def again() -> bool:
        return len(machine.tasks("unmount")) == 2

    await until(again, "a second unmount")
    assert (await storage.row(row["attachment_id"]))["state"] == "failed"
    await world.release(storage.allocation)
    await world.cleaned(storage.allocation)
    await all_is_well(world)
    await machine.stop()
    await provider.stop()
    shutil.rmtree(provider.base)


async def test_far_above_its_quota_no_writer_is_let_in_until_it_is_well_below(storage: Storage[StorageMachine]) -> None:
    (storage.directory / "large").write_bytes(b"x" * 2 * QUOTA)

    async def flag() -> Any:
        return (await storage.about())["quota_flag"]

    await until(flag, "it is flagged")
    assert (await storage.attach("failed"))["reason"] == "quota_blocked"
    assert (await storage.attach(mode="ro"))["state"] == "attached"
    (storage.directory / "large").unlink()
    run = await ended_run(storage.world, f"namespace:{storage.namespace}", "R14")
    assert undone(run) == [("compensate", "state_change", "success")]
    assert not (await storage.about())["rw_blocked"]
    await asyncio.sleep(0)
