"""What goes wrong on order with mounts of the simulated machines, and what a customer may do through them."""

import asyncio
from typing import Any

import pytest

from adapters.simulated.agents import AgentSteps
from amends.ports.steps import Outcome
from tests.adapters.mounts.bench import PATH, A, Simulated, ask, mount_args, reconcile
from tests.adapters.steps import call

MOUNTED: dict[str, Any] = {"mounted": True, "mode": "rw"}


async def test_a_mount_may_say_that_it_failed_and_be_mounted() -> None:
    bench = Simulated()
    bench.break_next("mount", "fail_mounted")
    said = await ask(bench, "mount", "1")
    assert (said.kind, said.code, said.data["observed"]) == ("failed", "mount_failed", MOUNTED)
    assert (await ask(bench, "unmount", "2")).data == {"observed": {"mounted": False}}


@pytest.mark.parametrize(("kind", "is_mounted"), [("lose", True), ("hang", False), ("late", True)])
async def test_of_a_lost_or_hanging_task_nobody_knows(kind: str, is_mounted: bool) -> None:
    bench = Simulated()
    bench.machine.break_next("mount", kind, 9)
    said = await ask(bench, "mount", "1", timeout_ms=100)
    assert (said.kind, said.code) == ("unknown", "agent_timeout")
    assert bench.is_mounted(PATH) == is_mounted


async def test_a_late_result_comes_once_nobody_waits_and_once_only() -> None:
    bench, late = Simulated(), list[tuple[str, str, Outcome]]()
    steps = AgentSteps(bench.fleet, {"n1": 1}.get, late=lambda *said: late.append(said))
    bench.break_next("mount", "late")
    mount = call("agent.mount", mount_args(bench), step="1", timeout_ms=100)
    assert (await steps.run(mount)).code == "agent_timeout"
    await asyncio.sleep(0)  # a turn of the loop
    assert [(node, task, said.data["observed"]) for node, task, said in late] == [("n1", "task_1", MOUNTED)]
    assert (await steps.run(mount)).kind == "done", "the kept result"
    assert len(late) == 1


@pytest.mark.parametrize(("kind", "code"), [("stale", "stale"), ("ro", "ro"), ("missing", "missing")])
async def test_a_probe_says_what_it_is_told_to(kind: str, code: str) -> None:
    bench = Simulated()
    await ask(bench, "mount", "1")
    bench.break_next("probe_mount", kind)
    said = await ask(bench, "probe_mount", "2")
    assert (said.code, said.data["observed"]["mounted"]) == (code, kind != "missing")


async def test_a_refused_task_does_nothing_and_a_slow_one_is_done() -> None:
    bench = Simulated()
    bench.break_next("mount", "refuse")
    assert (await ask(bench, "mount", "1")).code == "agent_failed"
    assert not bench.is_mounted(PATH)
    bench.break_next("mount", "slow")
    assert (await ask(bench, "mount", "2")).kind == "done"


async def test_holders_keep_a_mount_also_from_a_reconcile() -> None:
    bench = Simulated()
    await ask(bench, "mount", "1")
    bench.machine.mounts.mounted[A].holders = ["process 7 (python): cwd"]
    assert (await reconcile(bench, "2"))["mounts"] == [A]
    busy = await ask(bench, "unmount", "3")
    assert (busy.code, busy.data) == ("busy", {"observed": MOUNTED, "holders": ["process 7 (python): cwd"]})
    bench.machine.mounts.mounted[A].holders.clear()
    assert (await ask(bench, "unmount", "4")).kind == "done"
    bench.break_next("unmount", "busy")
    assert (await ask(bench, "unmount", "5")).data["noop"] is True, "what is not there is not in use"


async def test_a_customer_writes_where_it_is_mounted_to_be_written() -> None:
    bench = Simulated()
    with pytest.raises(FileNotFoundError):
        bench.write(PATH, "file", b"")
    await ask(bench, "mount", "1", mode="ro")
    with pytest.raises(PermissionError):
        bench.write(PATH, "file", b"")
    assert bench.contents("ns_a") == {}
