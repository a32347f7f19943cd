"""The agent's mounts where things hang, end, come late or lie: over a real NATS server, with plain mounts."""

import asyncio
import json
import shutil
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.nats.agent_messages import MAX_HOLDER, MAX_HOLDERS, MountTask, Observed, TaskResult
from adapters.nats.agent_mounting import Mounting
from adapters.nats.agent_outcomes import late_outcome, outcome
from adapters.nats.agent_paths import check
from adapters.nats.agent_plain import PlainMounts
from adapters.nats.agent_sources import Bind, Nfs, source_of
from adapters.nats.agent_store import KEPT_UNDONE, AgentStore, Held
from adapters.simulated.mount_faults import BrokenMounts
from amends.ports.mounts import MountRefused
from tests.adapters.mounts.bench import PATH, A, B, OnNats, ask, mount_args, reconcile
from tests.directories import scratch
from tests.patience import PATIENCE_S


async def soon(condition: Any) -> None:
    """Until that holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_mount_that_hangs_stops_neither_beats_nor_other_tasks(real: OnNats) -> None:
    real.break_next("mount", "hang")
    hanging = asyncio.create_task(ask(real, "mount", "1"))
    await soon(lambda: real.mounts.pending(A))
    before = real.agent.beats
    assert (await ask(real, "mount", "2", B, mount_path="/mnt/other")).kind == "done"
    assert (await reconcile(real, "3", A, B))["mounts"] == [A, B], "what may be mounted counts as mounted"
    await soon(lambda: real.agent.beats > before + 3)
    assert not hanging.done()
    # when it goes on, its result comes
    real.faults.mend()
    assert (await hanging).data == {"observed": {"mounted": True, "mode": "rw"}}


async def test_a_mount_that_hangs_beyond_its_time_is_in_doubt_and_its_unmount_waits_for_it(real: OnNats) -> None:
    real.break_next("mount", "hang")
    timed_out = await ask(real, "mount", "1", timeout_ms=1500)
    assert (timed_out.kind, timed_out.code, timed_out.data["observed"]) == ("failed", "timeout", {})
    busy = await ask(real, "unmount", "2", timeout_ms=1500)
    assert (busy.code, busy.data["observed"], len(busy.data["holders"])) == ("busy", {}, 1)
    assert (await ask(real, "probe_mount", "3")).code == "missing"
    unmounting = asyncio.create_task(ask(real, "unmount", "4"))
    await asyncio.sleep(0.3)
    real.faults.mend()
    # then the mount that came after all is taken away
    assert (await unmounting).data == {"observed": {"mounted": False}}
    assert not real.is_mounted(PATH)


async def test_an_unmount_that_hangs_is_in_doubt_until_it_has_ended(real: OnNats) -> None:
    await ask(real, "mount", "1")
    real.break_next("unmount", "hang")
    hung = await ask(real, "unmount", "2", timeout_ms=1500)
    assert (hung.kind, hung.code, hung.data["observed"]) == ("failed", "timeout", {})
    assert real.mounts.pending(A)  # it still hangs
    real.faults.mend()
    assert (await ask(real, "unmount", "3")).data["noop"] is True


async def test_a_probe_whose_server_says_nothing_is_stale_while_its_thread_is_still_held(
    real: OnNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.nats.agent_mounting.LOOK_S", 1.0)
    await ask(real, "mount", "1")
    real.break_next("probe_mount", "hang")
    before = real.agent.beats
    probe = await ask(real, "probe_mount", "2")
    assert (probe.code, probe.message) == ("stale", "it does not answer: time-out")
    assert real.faults.blocked == 1
    assert real.agent.beats > before  # which holds nothing else
    real.faults.mend()
    await soon(lambda: real.faults.blocked == 0)
    assert (await ask(real, "probe_mount", "3")).kind == "done"


async def test_an_agent_restarted_in_the_middle_of_a_mount_still_knows_of_it(real: OnNats) -> None:
    real.break_next("mount", "hang")
    mounting = asyncio.create_task(ask(real, "mount", "1"))
    await soon(lambda: real.mounts.pending(A))
    await real.restart()
    # then the same task, which is sent on, is not begun beside what hangs, and finds it done when that goes on
    assert (await reconcile(real, "2", A))["mounts"] == [A]
    assert not mounting.done()
    real.faults.mend()
    assert (await mounting).data == {"observed": {"mounted": True, "mode": "rw"}}
    assert (await ask(real, "unmount", "3")).data == {"observed": {"mounted": False}}


async def test_a_mount_that_hangs_does_not_keep_a_reconcile_from_the_others(
    real: OnNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.nats.agent.TAKE_AWAY_S", 0.3)
    await ask(real, "mount", "1", B, mount_path="/mnt/other")
    real.break_next("mount", "hang")
    hanging = asyncio.create_task(ask(real, "mount", "2"))
    await soon(lambda: real.mounts.pending(A))
    found = await reconcile(real, "3", kept=f"not taken away: {A}: it has not ended in time")
    assert found["mounts"] == [A]
    assert not real.is_mounted("/mnt/other")
    real.faults.mend()
    assert (await hanging).kind == "done"


async def test_unmounts_that_hang_do_not_keep_a_reconcile_from_the_others(real: OnNats) -> None:
    keys = [f"attach_{number}" for number in range(9)]
    await asyncio.gather(*(ask(real, "mount", key, key, mount_path=f"/mnt/{key}") for key in keys))
    for _ in range(4):
        real.break_next("unmount", "hang")
    taking = asyncio.create_task(reconcile(real, "all"))
    # all others are taken away while those hang, long before the time of one of them is over
    await soon(lambda: sum(map(real.mounts.pending, keys)) == 4 and len(real.mounts.table()) == 4)
    assert not taking.done()
    real.faults.mend()
    assert (await taking)["mounts"] == []


async def test_what_could_not_be_taken_away_is_named_with_the_reason_and_counts_as_mounted(
    real: OnNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(real, "mount", "1")
    real.break_next("unmount", "busy")
    assert (await reconcile(real, "2", kept=f"{A}: busy: target is busy"))["mounts"] == [A]
    assert (await reconcile(real, "3"))["mounts"] == []
    # a disk that fails keeps the inventory from nobody either
    await ask(real, "mount", "4", attempt="task_b")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AgentStore, "undo", full)
    assert (await reconcile(real, "5", kept="No space left on device"))["mounts"] == [A]


async def test_an_unmount_whose_source_or_path_does_not_answer_is_in_doubt_and_not_done(
    real: OnNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object) -> str:
        raise OSError(116, "Stale file handle")

    # given a mount that the record has lost
    await ask(real, "mount", "1")
    await real.agent.stop()
    (real.base / "n1" / "agent.json").unlink()
    await real.restart()
    monkeypatch.setattr(BrokenMounts, "name_of", stale)
    doubt = await ask(real, "unmount", "2")
    assert (doubt.kind, doubt.code, doubt.data["observed"]) == ("failed", "unmount_failed", {})
    # where nothing is mounted the source does not matter
    assert (await ask(real, "unmount", "3", B, mount_path="/mnt/other")).data["noop"] is True
    monkeypatch.setattr(BrokenMounts, "where", stale)
    doubt = await ask(real, "unmount", "4")
    assert (doubt.kind, doubt.code, doubt.data["observed"]) == ("failed", "unmount_failed", {})
    assert real.is_mounted(PATH)


async def test_a_killed_agent_has_written_down_what_it_was_about_to_mount(real: OnNats) -> None:
    # given an agent that wrote its intent down, mounted, and was gone before its result was kept
    await real.agent.stop()
    store = AgentStore(real.base / "n1")
    mounting = Mounting(store, real.mounts)
    task = msgspec.convert(mount_args(real), type=MountTask)
    assert (await mounting.do("task_lost", "mount", task, lambda: 5.0)).status == "ok"
    store.close()
    await real.restart()
    # then the task that is sent again finds it, and a reconcile may take it away
    assert (await ask(real, "mount", "1")).kind == "done"
    assert (await reconcile(real, "2"))["mounts"] == []
    assert not real.is_mounted(PATH)


async def test_a_result_that_comes_when_nobody_waits_any_more_is_handed_on_once(real: OnNats) -> None:
    real.break_next("mount", "slow")
    assert (await ask(real, "mount", "1", timeout_ms=300)).code == "agent_timeout"
    await soon(lambda: real.late)
    ((node_id, task_id, result),) = real.late
    assert (node_id, task_id, result.kind) == ("n1", "task_1", "done")
    assert result.data["observed"] == {"mounted": True, "mode": "rw"}


async def test_late_results_are_bounded_and_those_of_unknown_nodes_and_of_answered_tasks_are_none(
    real: OnNats,
) -> None:
    tasks = real._runners[1]
    assert (await ask(real, "mount", "1")).kind == "done"
    body = {"status": "ok", "observed": {"mounted": True}}

    async def publish(node_id: str, task_id: str, times: int = 1) -> None:
        before = tasks.unasked + len(real.late)
        for _ in range(times):
            await real.client.publish(f"amends.v1.result.{node_id}", json.dumps(body | {"task_id": task_id}).encode())
        await soon(lambda: tasks.unasked + len(real.late) == before + times)

    await publish("n1", "task_1")
    await publish("n2", "task_9")
    assert real.late == []
    await publish("n1", "task_9", 200)
    assert 0 < len(real.late) < 64
    assert (await ask(real, "probe_mount", "2")).kind == "done"
    await publish("n1", "task_10")
    assert real.late[-1][1] == "task_10"


async def test_the_record_that_was_lost_leaves_the_mount_and_says_so(real: OnNats) -> None:
    await ask(real, "mount", "1")
    await real.agent.stop()
    (real.base / "n1" / "agent.json").unlink()
    await real.restart()
    lost = await ask(real, "unmount", "2")
    assert (lost.code, lost.data["observed"]) == ("not_own", {"mounted": True})
    assert real.is_mounted(PATH)
    assert (await ask(real, "mount", "3", attempt="task_b")).code == "path_taken"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"mount_path": "mnt/data"}, "path_not_allowed"),
        ({"mount_path": "/mnt/../etc/x"}, "path_not_allowed"),
        ({"mount_path": "/mnt//data"}, "path_not_allowed"),
        ({"mount_path": "/home/am-x/data"}, "path_not_allowed"),
        ({"mount_path": "/etc"}, "path_not_allowed"),
        ({"mount_path": "/"}, "path_not_allowed"),
        ({"mount_path": "/mnt/a\nb"}, "path_not_allowed"),
        ({"mount_path": "/mnt/out/data"}, "path_not_allowed"),
        ({"mount_path": "/mnt/" + "é" * 2100}, "path_not_allowed"),
        ({"mount_path": "/mnt/" + "x" * 300}, "mount_failed"),
        ({"mount_path": "/mnt/" + "x" * 5000}, "invalid_task"),
        ({"mode": "rwx"}, "invalid_task"),
        ({"attachment_id": ""}, "invalid_task"),
        ({"source": {"type": "cifs", "path": "/srv"}}, "source_not_allowed"),
        ({"source": {}}, "source_not_allowed"),
        ({"source": {"type": "bind", "path": "/srv/../etc"}}, "source_not_allowed"),
        ({"source": {"type": "bind", "path": "/no/such/directory"}}, "source_missing"),
    ],
)
async def test_what_is_not_to_be_mounted_is_refused_by_name(real: OnNats, fields: dict[str, Any], code: str) -> None:
    (real.root / "mnt").mkdir(parents=True, exist_ok=True)
    (real.root / "mnt" / "out").symlink_to("/tmp")
    refused = await ask(real, "mount", "1", **fields)
    assert (refused.kind, refused.code) == ("failed", code)
    assert refused.data["observed"].get("mounted") is not True
    assert (await ask(real, "mount", "2")).kind == "done"


async def test_what_is_in_the_way_at_the_path_is_left_there(real: OnNats) -> None:
    place = real.root / "mnt" / "data"
    place.mkdir(parents=True)
    (place / "theirs").write_bytes(b"theirs")
    assert (await ask(real, "mount", "1")).code == "path_taken"
    assert (place / "theirs").read_bytes() == b"theirs"


@pytest.mark.parametrize(
    "option", ["suid", "dev", "rw", "bind", "remount", "exec,suid", "-o", "sec=none", "mountprog=1", "hard\n", "x=1"]
)
def test_options_that_are_not_in_the_table_are_refused(option: str) -> None:
    source = {"type": "nfs", "server": "storage", "export": "/srv/a"}
    for options in (option, f"hard,{option}"):
        with pytest.raises(MountRefused, match="option"):
            source_of(source | {"options": options})
    assert isinstance(source_of(source | {"options": "vers=4.2,hard,timeo=50"}), Nfs)
    for server in ("-o", "a b", "", "a/b", "x:\n"):
        with pytest.raises(MountRefused, match="server"):
            source_of(source | {"server": server})


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from(["type", "server", "export", "path", "options"]), ANY | st.just("nfs")))
def test_any_source_is_read_or_refused(source: dict[str, Any]) -> None:
    try:
        found = source_of(source)
    except MountRefused:
        return
    path = found.path if isinstance(found, Bind) else found.export
    assert path.startswith("/")
    assert ".." not in path.split("/")


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="/.a \x00~-", max_size=20).map(lambda rest: "/mnt/" + rest))
def test_any_path_is_plain_or_refused(path: str) -> None:
    try:
        check(path)
    except MountRefused:
        return
    assert path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/")[1:])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["mount", "unmount", "probe_mount"]), st.sampled_from([A, B]), st.sampled_from("12"),
            st.sampled_from(["/mnt/a", "/mnt/b", "/mnt/a/c", "/mnt/theirs"]), st.sampled_from(["ro", "rw"]),
        ),
        max_size=25,
    )
)  # fmt: skip
def test_whatever_is_asked_each_path_has_one_owner_and_what_was_undone_is_not_mounted(asked: list[Any]) -> None:
    base = scratch("amends-asked-")
    (base / "export").mkdir()
    mounts = PlainMounts(base / "root", base / "n1", "boot-1")
    theirs = base / "root" / "mnt" / "theirs"
    theirs.parent.mkdir()
    theirs.symlink_to(base / "export")
    store = AgentStore(base / "n1")
    mounting = Mounting(store, mounts)

    async def run() -> None:
        for number, (op, key, attempt, path, mode) in enumerate(asked):
            task = MountTask(key, attempt, mode, path, {"type": "bind", "path": str(base / "export")})
            undone = store.is_undone(key, attempt)
            result = await mounting.do(f"task_{number}", op, task, lambda: 5.0)
            if op == "mount":
                assert not (undone and result.status == "ok")
            if op == "unmount":
                assert store.is_undone(key, attempt)
            held = store.memory.held
            assert sorted(line.path for line in mounts.table()) == sorted(one.path for one in held.values())
            assert theirs.is_symlink()

    try:
        asyncio.run(run())
    finally:
        store.close()
        shutil.rmtree(base)


def test_the_undone_attempts_are_bounded_and_the_latest_are_kept(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.nats.agent_store.KEPT_UNDONE", 5)
    store = AgentStore(tmp_path_factory.mktemp("agent"))
    for number in range(8):
        store.undo(A, f"task_{number}")
    assert [store.is_undone(A, f"task_{number}") for number in (2, 3, 7)] == [False, True, True]
    assert KEPT_UNDONE >= 1024
    store.close()


def test_a_file_of_the_release_before_is_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("agent")
    old = {"node_epoch": 3, "runtime_epoch": 4, "mounts": [], "results": {
        "task_1": {"task_id": "task_1", "status": "ok", "code": "", "message": "", "holders": [], "observed": {},
                   "inventory": {"mounts": [], "users": [], "foreign": []}}}}  # fmt: skip
    (directory / "agent.json").write_text(json.dumps(old))
    store = AgentStore(directory)
    assert (store.memory.runtime_epoch, store.memory.held, store.result("task_1") is not None) == (4, {}, True)
    store.hold(A, Held("task_a", "/mnt/data", "x", "rw"))
    store.close()
    again = AgentStore(directory)
    assert list(again.memory.held) == [A]
    again.close()


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(ANY, max_size=50), ANY, st.sampled_from(["ok", "error", "noop"]))
def test_whatever_an_agent_says_of_a_mount_is_bounded_and_printable(holders: list[Any], seen: Any, status: str) -> None:
    body = {"task_id": "t", "status": status, "holders": [*holders, "h" * 1000] * 2, "message": str(seen)}
    for observed in (seen, {"mounted": seen}, {"mounted": True, "more": seen}, None):
        try:
            result = msgspec.json.decode(msgspec.json.encode(body | {"observed": observed}), type=TaskResult)
        except (msgspec.ValidationError, OverflowError):
            continue
        for found in (*(outcome(op, result) for op in ("mount", "unmount", "probe_mount")), late_outcome(result)):
            said = found.data.get("holders", [])
            assert len(said) <= MAX_HOLDERS
            assert all(len(each) <= MAX_HOLDER and each.isprintable() for each in said)
            assert set(found.data["observed"]) <= {"mounted", "mode"}


@pytest.mark.parametrize(
    ("op", "status", "mounted"),
    [("mount", "ok", False), ("probe_mount", "ok", False), ("unmount", "ok", True), ("unmount", "noop", True)],
)
def test_a_result_that_contradicts_itself_is_none(op: str, status: Any, mounted: bool) -> None:
    found = outcome(op, TaskResult("task_1", status, observed=Observed(mounted=mounted)))
    assert (found.kind, found.code) == ("failed", "agent_malformed")
    assert outcome(op, TaskResult("task_1", status)).kind == "done", "what says nothing does not contradict"
