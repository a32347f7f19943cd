"""A restored backup on real parts: the copy of yesterday is put back while a machine holds today's customer."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.embedded.process import ServerFailed
from supervisors.boot.restore import restore as mark
from supervisors.settings import load
from tests.acceptance.console import settle
from tests.acceptance.machine import user_of
from tests.acceptance.records import cases
from tests.acceptance.world import World, until
from tests.directories import with_database
from tests.forked import PIPE, python


async def restore(world: World, reason: str = "the disk is gone") -> tuple[int | None, str]:
    """`amends restore`: its exit status, and what it said."""
    config = str(world.state_dir / "amends.toml")
    command = ("-m", "supervisors.boot", "restore", "--config", config, "--reason", reason)
    process = await python(*command, stdout=PIPE, stderr=PIPE)
    said, complaint = await process.communicate()
    return process.returncode, (said + complaint).decode()


async def ended(world: World) -> None:
    """The runtime and its Postgres are gone."""
    assert world.process is not None
    await world.process.wait()

    async def gone() -> bool:
        file = world.state_dir / "postgres" / "data" / "postmaster.pid"
        try:
            os.kill(int(file.read_text().split("\n")[0]), 0)
        except (OSError, ValueError):
            return True
        return False

    await until(gone, "the database's server has ended")


async def copy(source: Path, target: Path) -> None:
    copying = await asyncio.create_subprocess_exec("cp", "-a", str(source), str(target))
    assert await copying.wait() == 0


async def test_a_restored_backup_assigns_no_node_before_it_was_looked_at_and_removes_nobody(state_dir: Path) -> None:
    async with World(state_dir).running() as world:
        await world.account("acme")
        machine = await world.add_machine()
        node_id, data, backup = machine.node_id, state_dir / "postgres" / "data", state_dir / "backup"
        await world.quiet()
        # given a backup, and a customer who came after it
        assert world.process is not None
        world.process.terminate()
        await ended(world)
        await copy(data, backup)
        await world.restart()
        lost = await world.rent(node_id=node_id)
        assert await machine.lets_in(lost)
        # then a runtime that lives is not interfered with
        status, said = await restore(world)
        assert (status, "in use by the process" in said) == (3, True), said
        # when the disk is lost, and the backup put back
        world.kill()
        await ended(world)
        shutil.rmtree(data)
        await copy(backup, data)
        status, said = await restore(world)
        assert status == 0, said
        await world.restart()
        # then who asks at once is not sent there, and the customer of whom nobody knows stays, with a case
        waiting = await world.request(node_id=node_id)

        async def opened() -> Any:
            return await cases(world, f"node:{node_id}/user:{user_of(lost)}")

        (case,) = await until(opened, "a case for the unknown user")
        assert (case["kind"], case["state"]) == ("restored_unknown", "open")
        assert await machine.lets_in(lost)
        row = await world.node(node_id)
        assert (row["state"], row["quarantine_reasons"]) == ("quarantined", ["restored"])
        assert (await world.allocation(waiting))["node_id"] is None
        head = await world.one("SELECT epoch FROM journal_head")
        assert head["epoch"] > 2**32
        told = await world.amends("why", node_id)
        assert "restored_unknown" in told
        assert f"amends node return-to-service {node_id}" in told
        # when an operator lets it back, then the user is removed, and the one who waited gets the node
        target = f"node:{node_id}/user:{user_of(lost)}"
        await settle(world, "restored_unknown", target, "ops.node.return_to_service")
        await world.allocation_is(waiting, "active")
        assert user_of(lost) not in machine.ssh.table.users
        assert await machine.lets_in(waiting)
        (case,) = await opened()
        assert case["state"] == "resolved"
        await world.release(waiting)
        await world.cleaned(waiting)
        reasons = await world.rows(
            "SELECT reason FROM public_v1.audit_log WHERE action = 'node.quarantined' AND target_ref = $1",
            f"node:{node_id}",
        )
        assert reasons == [{"reason": "the disk is gone"}]
        # and all that was written is as it was written
        assert "valid: both chains" in await world.amends("audit", "verify", "--state-dir", str(state_dir))


async def test_a_copy_that_was_put_back_unmarked_is_noticed_by_a_nodes_refusal(state_dir: Path) -> None:
    async with World(state_dir).running() as world:
        await world.account("acme")
        machine = await world.add_machine()
        data, backup = state_dir / "postgres" / "data", state_dir / "backup"
        allocation_id = await world.rent(node_id=machine.node_id)
        await world.quiet()
        assert world.process is not None
        # given a backup with a customer, whom the second runtime after it has locked out and removed
        world.process.terminate()
        await ended(world)
        await copy(data, backup)
        await world.restart()
        world.process.terminate()
        await world.restart()
        await world.release(allocation_id)
        await world.cleaned(allocation_id)
        # when the backup is put back, and nobody says so
        world.kill()
        await ended(world)
        shutil.rmtree(data)
        await copy(backup, data)
        await world.restart()
        await world.ok("cmd.allocation.release", {"allocation_id": allocation_id})
        # then the node's refusal raises the epoch, and ends this runtime
        assert await world.process.wait() == 1
        assert f"node:{machine.node_id} has seen epoch 3 and this runtime has 2, as after a restore" in world.log_text()
        # and the next one is obeyed
        await world.restart()
        await world.cleaned(allocation_id)
        raised = await world.one("SELECT reason, epoch FROM public_v1.audit_log WHERE action = 'lease.epoch_raised'")
        assert raised == {"reason": "a node has seen a higher epoch", "epoch": 2}
        assert (await world.one("SELECT epoch FROM journal_head"))["epoch"] == 3 + 2**32 + 1
        assert "valid: both chains" in await world.amends("audit", "verify", "--state-dir", str(state_dir))


async def test_a_directory_without_a_database_is_not_marked(state_dir: Path) -> None:
    world = World(state_dir)
    state_dir.mkdir(parents=True)
    (state_dir / "amends.toml").write_text(f'state_dir = "{state_dir}"\n')
    status, said = await restore(world)
    assert (status, "holds no database" in said) == (2, True), said
    assert [each.name for each in state_dir.iterdir()] == ["amends.toml"]


async def test_a_reason_that_is_none_is_refused(state_dir: Path) -> None:
    state_dir.mkdir(parents=True)
    (state_dir / "amends.toml").write_text(f'state_dir = "{state_dir}"\n')
    status, said = await restore(World(state_dir), "")
    assert (status, "--reason" in said) == (2, True), said


async def test_a_database_that_lies_elsewhere_is_found_and_missed(
    state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a state directory whose data went elsewhere, as root's do below a closed directory
    elsewhere = state_dir.parent / "elsewhere"
    await with_database(elsewhere)
    state_dir.mkdir()
    (state_dir / "postgres-directory").write_text(f"{elsewhere / 'postgres'}\n")
    settings = load(None, {"AMENDS_STATE_DIR": str(state_dir)})
    assert await mark(settings, "the disk is gone") == 0
    assert "marked" in capsys.readouterr().out
    # when it is put back without them, then no other is made in their place
    (elsewhere / "postgres").rename(elsewhere / "lost")
    with pytest.raises(ServerFailed, match=r"elsewhere/postgres, which is not there: put it back"):
        await mark(settings, "the disk is gone")
    with pytest.raises(ServerFailed, match="put it back"):
        await EmbeddedPostgres(state_dir).start()
