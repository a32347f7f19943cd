"""One contract of mounts for the agent over NATS and for the simulated one: what is done once, refused, left alone."""

import asyncio

import pytest

from tests.adapters.mounts.bench import PATH, A, B, Bench, ask, reconcile


async def test_a_mount_is_made_probed_written_through_and_unmounted_and_its_contents_stay(bench: Bench) -> None:
    mounted = await ask(bench, "mount", "1")
    assert (mounted.kind, mounted.data) == ("done", {"observed": {"mounted": True, "mode": "rw"}})
    assert (await ask(bench, "probe_mount", "2")).data == mounted.data
    bench.write(PATH, "file", b"kept")
    unmounted = await ask(bench, "unmount", "3")
    assert (unmounted.kind, unmounted.data) == ("done", {"observed": {"mounted": False}})
    assert not bench.is_mounted(PATH)
    assert bench.contents("ns_a") == {"file": b"kept"}


async def test_the_same_task_again_is_the_same_result_and_mounts_once(bench: Bench) -> None:
    first = await ask(bench, "mount", "1")
    await ask(bench, "unmount", "2")
    # then the kept result is sent, and nothing is mounted
    assert await ask(bench, "mount", "1") == first
    assert not bench.is_mounted(PATH)


async def test_a_mount_that_is_there_already_is_done_and_another_attempt_of_it_is_refused(bench: Bench) -> None:
    await ask(bench, "mount", "1")
    assert (await ask(bench, "mount", "2")).kind == "done"
    other = await ask(bench, "mount", "3", attempt="task_b")
    assert (other.kind, other.code, other.data["observed"]["mounted"]) == ("failed", "attempt_taken", True)


async def test_an_attempt_that_was_unmounted_is_not_mounted_again_and_the_next_one_is(bench: Bench) -> None:
    await ask(bench, "mount", "1")
    await ask(bench, "unmount", "2")
    late = await ask(bench, "mount", "3")
    assert (late.kind, late.code, late.data["observed"]) == ("failed", "undone", {"mounted": False})
    assert (await ask(bench, "mount", "4", attempt="task_b")).kind == "done"
    # and its own late unmount leaves the next one alone
    assert (await ask(bench, "unmount", "5")).data["noop"] is True
    assert bench.is_mounted(PATH)


async def test_an_attempt_may_be_undone_before_its_mount_arrives(bench: Bench) -> None:
    assert (await ask(bench, "unmount", "1")).data == {"noop": True, "observed": {"mounted": False}}
    await bench.restart()
    assert (await ask(bench, "mount", "2")).code == "undone"


async def test_unmounting_twice_is_a_noop(bench: Bench) -> None:
    await ask(bench, "mount", "1")
    await ask(bench, "unmount", "2")
    again = await ask(bench, "unmount", "3")
    assert (again.kind, again.data["noop"]) == ("done", True)


async def test_a_busy_mount_stays_and_its_holders_are_named_until_it_is_free(bench: Bench) -> None:
    await ask(bench, "mount", "1")
    bench.break_next("unmount", "busy")
    busy = await ask(bench, "unmount", "2")
    assert (busy.kind, busy.code) == ("failed", "busy")
    assert busy.data == {"observed": {"mounted": True, "mode": "rw"}, "holders": ["process 1 (sh): cwd"]}
    assert bench.is_mounted(PATH)
    assert (await ask(bench, "unmount", "3")).data == {"observed": {"mounted": False}}


async def test_a_mount_that_fails_leaves_nothing_and_is_known_not_to_be_mounted(bench: Bench) -> None:
    bench.break_next("mount", "fail")
    failed = await ask(bench, "mount", "1")
    assert (failed.kind, failed.code, failed.data["observed"]) == ("failed", "mount_failed", {"mounted": False})
    assert not bench.is_mounted(PATH)
    assert (await ask(bench, "mount", "2")).kind == "done"


@pytest.mark.parametrize("path", [PATH, PATH + "/below", "/mnt"])
async def test_a_path_of_another_attachment_or_above_or_below_it_is_taken(bench: Bench, path: str) -> None:
    await ask(bench, "mount", "1")
    taken = await ask(bench, "mount", "2", B, source=bench.source("ns_b"), mount_path=path)
    assert (taken.kind, taken.code, taken.data["observed"]["mounted"]) == ("failed", "path_taken", False)
    assert (await ask(bench, "probe_mount", "3")).kind == "done"


async def test_a_foreign_mount_is_never_touched(bench: Bench) -> None:
    bench.add_foreign(PATH)
    assert (await ask(bench, "mount", "1")).code == "path_taken"
    assert (await ask(bench, "unmount", "2")).data["noop"] is True
    found = await reconcile(bench, "3")
    assert (found["mounts"], len(found["foreign"])) == ([], 1)
    assert bench.is_foreign(PATH)


async def test_a_probe_says_what_is_wrong(bench: Bench) -> None:
    assert (await ask(bench, "probe_mount", "1")).code == "missing"
    await ask(bench, "mount", "2", mode="ro")
    assert (await ask(bench, "probe_mount", "3")).code == "ro"
    assert (await ask(bench, "probe_mount", "4", mode="ro")).kind == "done"
    assert (await ask(bench, "probe_mount", "5", attempt="task_b", mode="ro")).code == "missing"
    bench.break_next("probe_mount", "stale")
    stale = await ask(bench, "probe_mount", "6", mode="ro")
    assert (stale.code, stale.data["observed"]) == ("stale", {"mounted": True, "mode": "ro"})


async def test_a_reconcile_removes_its_own_unexpected_mounts_and_their_attempts_are_undone(bench: Bench) -> None:
    bench.add_foreign("/mnt/theirs")
    await ask(bench, "mount", "1")
    await ask(bench, "mount", "2", B, source=bench.source("ns_b"), mount_path="/mnt/other")
    assert (await reconcile(bench, "3", B, report_only=True))["mounts"] == [A, B]
    found = await reconcile(bench, "4", B)
    assert (found["mounts"], len(found["foreign"])) == ([B], 1)
    assert not bench.is_mounted(PATH)
    assert bench.is_mounted("/mnt/other")
    assert bench.is_foreign("/mnt/theirs")
    assert (await ask(bench, "mount", "5")).code == "undone"


async def test_a_restarted_agent_knows_its_mounts_its_results_and_what_was_undone(bench: Bench) -> None:
    first = await ask(bench, "mount", "1")
    await ask(bench, "unmount", "2", B)
    await bench.restart()
    assert await ask(bench, "mount", "1") == first
    assert (await ask(bench, "mount", "3", B, mount_path="/mnt/other")).code == "undone"
    assert (await reconcile(bench, "4", A))["mounts"] == [A]
    assert (await ask(bench, "unmount", "5")).data == {"observed": {"mounted": False}}


async def test_a_reboot_loses_mounts_and_keeps_what_was_undone(bench: Bench) -> None:
    await ask(bench, "mount", "1")
    await ask(bench, "unmount", "2", B)
    await bench.reboot()
    assert not bench.is_mounted(PATH)
    assert (await reconcile(bench, "3", A))["mounts"] == []
    assert (await ask(bench, "mount", "4", B)).code == "undone"
    assert (await ask(bench, "unmount", "5")).data["noop"] is True


async def test_a_task_of_an_older_epoch_changes_nothing(bench: Bench) -> None:
    newer, older = bench.runner(7), bench.runner(6)
    for runner in (newer, older):
        start = getattr(runner, "start", None)
        if start is not None:
            await start()
    assert (await ask(bench, "mount", "1", epoch=7)).kind == "done"
    for op in ("mount", "unmount", "probe_mount"):
        assert (await ask(bench, op, f"late-{op}", epoch=6)).code == "stale_epoch"
    assert bench.is_mounted(PATH)


async def test_of_many_at_once_each_is_done(bench: Bench) -> None:
    keys = [f"attach_{number}" for number in range(12)]
    made = await asyncio.gather(*(ask(bench, "mount", k, k, mount_path=f"/mnt/{k}") for k in keys))
    assert {outcome.kind for outcome in made} == {"done"}
    assert (await reconcile(bench, "all", *keys))["mounts"] == sorted(keys)


async def test_of_two_at_one_path_one_has_it(bench: Bench) -> None:
    both = await asyncio.gather(ask(bench, "mount", "1", A), ask(bench, "mount", "2", B, source=bench.source("ns_b")))
    assert sorted(outcome.code for outcome in both) == ["", "path_taken"]
