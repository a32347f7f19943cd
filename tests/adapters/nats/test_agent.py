"""The node agent against a real NATS server: beats, tasks, kept results, epochs, servers that come and go."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

from adapters.embedded.nats import EmbeddedNats
from adapters.nats.agent import NodeAgent
from adapters.nats.agent_machine import customer_users
from adapters.nats.agent_messages import MAX_INVENTORY, MAX_RESULT_BYTES, PROTO, TaskResult
from adapters.nats.agent_plain import PlainMounts
from adapters.nats.agent_store import KEPT_RESULTS, AgentStore, StoreUnusable
from adapters.nats.agents import MAX_UNASKED, AgentTasks, Heartbeats
from amends.ports.steps import Outcome, StepCall
from tests.patience import PATIENCE_S

USER = "am-" + "0" * 26
Ask = Callable[..., Awaitable[dict[str, Any]]]


def mounts_of(tmp_path: Path, kind: type[PlainMounts] = PlainMounts) -> PlainMounts:
    """Plain mounts, with a link at /mnt/theirs that is somebody else's."""
    theirs = tmp_path / "root" / "mnt" / "theirs"
    if not theirs.is_symlink():
        theirs.parent.mkdir(parents=True)
        (tmp_path / "export").mkdir()
        theirs.symlink_to(tmp_path / "export")
    return kind(tmp_path / "root", tmp_path / "n1", "boot-1")


async def mount_two(ask: Ask, tmp_path: Path, **fields: Any) -> None:
    """Have attach_a and attach_b mounted."""
    for name in ("attach_a", "attach_b"):
        source = {"type": "bind", "path": str(tmp_path / "export")}
        more = {"attachment_id": name, "attempt_id": "task_a", "mode": "rw", "mount_path": f"/mnt/{name}"}
        result = await ask(task_id=f"task_{name}", op="mount", source=source, **more, **fields)
        assert (result["status"], result["message"]) == ("ok", "")


@asynccontextmanager
async def running(agent: NodeAgent) -> AsyncIterator[NodeAgent]:
    """The agent, heard at least once."""
    await agent.start()
    async with asyncio.timeout(PATIENCE_S):
        before = agent.beats
        while agent.beats == before:
            await asyncio.sleep(0.005)
    yield agent
    await agent.stop()


@pytest.fixture
async def ask(client: Client) -> Ask:
    """Send a task to n1, again until there is a result, as the runtime does."""
    results = await client.subscribe("amends.v1.result.n1")

    async def ask(**fields: Any) -> dict[str, Any]:
        task = {"task_id": "task_1", "op": "reconcile", "node_epoch": 1, "runtime_epoch": 1} | fields
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await client.publish("amends.v1.task.n1", json.dumps(task).encode())
                try:
                    found: dict[str, Any] = json.loads((await results.next_msg(timeout=0.3)).data)
                except TimeoutError:
                    continue
                return found

    return ask


def agent_in(server: EmbeddedNats, tmp_path: Path, **options: Any) -> NodeAgent:
    return NodeAgent(
        "n1", [server.url], tmp_path / "n1", interval_ms=20, boot_id="boot-1", users=lambda: [USER], **options
    )


async def test_beats_carry_the_boot_and_a_growing_number(server: EmbeddedNats, client: Client, tmp_path: Path) -> None:
    beats = await client.subscribe("amends.v1.hb.n1")
    await client.flush()
    async with running(agent_in(server, tmp_path)):
        first, second = [json.loads((await beats.next_msg(timeout=PATIENCE_S)).data) for _ in range(2)]
    assert first["boot_id"] == "boot-1"
    assert second["seq"] == first["seq"] + 1
    assert second["sent_us"] > first["sent_us"] > 1_700_000_000_000_000


async def test_the_boot_is_the_machines_own_unless_said_otherwise(tmp_path: Path) -> None:
    kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert NodeAgent("n1", ["nats://127.0.0.1:1"], tmp_path).boot_id == kernel
    assert customer_users() == [user for user in customer_users() if user.startswith("am-")]


async def test_reconcile_reports_and_removes_only_its_own_unexpected_mounts(
    server: EmbeddedNats, ask: Ask, tmp_path: Path
) -> None:
    async with running(agent_in(server, tmp_path, mounts=mounts_of(tmp_path))):
        await mount_two(ask, tmp_path)
        result = await ask(expected={"mounts": ["attach_b"], "users": []})
    assert result["status"] == "ok"
    theirs = tmp_path / "root" / "mnt" / "theirs"
    assert result["inventory"] == {"mounts": ["attach_b"], "users": [USER], "foreign": [str(theirs)]}
    assert theirs.is_symlink()
    assert (tmp_path / "root" / "mnt" / "attach_b").is_symlink()
    assert not (tmp_path / "root" / "mnt" / "attach_a").exists()


@pytest.mark.parametrize("fields", [{"report_only": True}, {"op": "inventory"}], ids=["reconcile", "inventory"])
async def test_a_report_takes_nothing_away_not_even_what_nobody_expects_of_its_own(
    server: EmbeddedNats, ask: Ask, tmp_path: Path, fields: dict[str, Any]
) -> None:
    async with running(agent_in(server, tmp_path, mounts=mounts_of(tmp_path))):
        await mount_two(ask, tmp_path)
        result = await ask(expected={"mounts": ["attach_b"], "users": []}, **fields)
        assert result["inventory"]["mounts"] == ["attach_a", "attach_b"]
        assert (tmp_path / "root" / "mnt" / "attach_a").is_symlink()


async def test_a_repeated_task_gets_the_kept_result_even_from_a_restarted_agent(
    server: EmbeddedNats, ask: Ask, tmp_path: Path
) -> None:
    async with running(agent_in(server, tmp_path)):
        first = await ask(expected={"mounts": [], "users": []})
    emptied = NodeAgent("n1", [server.url], tmp_path / "n1", interval_ms=20, boot_id="boot-1", users=list)
    async with running(emptied):
        assert await ask(expected={"mounts": [], "users": []}) == first
        other = await ask(task_id="task_2", expected={"mounts": [], "users": []})
    assert first["inventory"]["users"] == [USER]
    assert other["inventory"]["users"] == []


@pytest.mark.parametrize("lower", ["node_epoch", "runtime_epoch"])
async def test_a_lower_epoch_is_refused_also_after_a_restart(
    server: EmbeddedNats, ask: Ask, tmp_path: Path, lower: str
) -> None:
    high = {"node_epoch": 5, "runtime_epoch": 5}
    async with running(agent_in(server, tmp_path)):
        await ask(**high)
    async with running(agent_in(server, tmp_path)):
        refused = await ask(task_id="task_2", **high | {lower: 4})
        accepted = await ask(task_id="task_3", **high)
    assert (refused["status"], refused["code"]) == ("error", "stale_epoch")
    assert "highest seen 5" in refused["message"]
    assert accepted["status"] == "ok"


async def test_a_task_whose_time_is_over_since_it_was_first_received_is_not_begun(
    server: EmbeddedNats, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    # given an agent that cannot keep what it has done at first, and a clock that goes on
    now, first = [100.0], tmp_path / "root" / "mnt" / "attach_a"
    async with running(agent_in(server, tmp_path, mounts=mounts_of(tmp_path), monotonic=lambda: now[0])):
        await mount_two(ask, tmp_path)
        kept = await ask(task_id="task_2", ttl_ms=5000, expected={"mounts": ["attach_a", "attach_b"]})
        assert kept["status"] == "ok"
        expected = {"mounts": ["attach_a", "attach_b"]}
        with monkeypatch.context() as broken:
            broken.setattr(AgentStore, "keep", full)
            assert (await ask(task_id="task_3", ttl_ms=5000, expected=expected))["code"] == "agent_failed"
        now[0] += 5.0
        # then it is told so, and nothing more is taken away; the clock of people says nothing
        assert (await ask(task_id="task_3", ttl_ms=5000, deadline_us=2**52))["code"] == "expired"
        assert first.is_symlink()
        assert await ask(task_id="task_2", ttl_ms=5000) == kept, "a kept result is no matter of time"
        assert (await ask(task_id="task_4", ttl_ms=5000, deadline_us=1))["status"] == "ok"


async def test_of_a_task_that_is_over_while_it_takes_away_the_rest_stays_and_is_named(
    server: EmbeddedNats, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.nats.agent.TAKEN_AT_ONCE", 1)
    now = [100.0]

    class Slow(PlainMounts):
        async def unmount(self, key: str, path: str, within_s: float) -> str:
            now[0] += 3.0
            return await super().unmount(key, path, within_s)

    async with running(agent_in(server, tmp_path, mounts=mounts_of(tmp_path, Slow), monotonic=lambda: now[0])):
        await mount_two(ask, tmp_path)
        result = await ask(ttl_ms=3000)
        assert (result["status"], result["inventory"]["mounts"]) == ("ok", ["attach_b"])
        assert result["message"] == "not taken away: attach_b: the task's time was over before its turn"
        assert not (tmp_path / "root" / "mnt" / "attach_a").exists()
        assert (tmp_path / "root" / "mnt" / "attach_b").is_symlink()


async def test_a_task_of_a_later_protocol_is_refused_and_one_of_the_earlier_done(
    server: EmbeddedNats, ask: Ask, tmp_path: Path
) -> None:
    async with running(agent_in(server, tmp_path)):
        assert (await ask(task_id="task_1", proto=PROTO + 1))["code"] == "unsupported_proto"
        for number, fields in enumerate(({}, {"proto": PROTO - 1}, {"proto": PROTO, "ttl_ms": 1000}), 2):
            assert (await ask(task_id=f"task_{number}", **fields))["status"] == "ok"


async def test_a_heartbeat_of_any_protocol_is_a_sign_of_life_and_what_we_do_not_speak_is_counted(
    client: Client,
) -> None:
    heard: list[tuple[str, str]] = []
    heartbeats = Heartbeats(heard.extend)
    await heartbeats.start(client)
    for number, more in enumerate(({}, {"proto": PROTO - 1}, {"proto": PROTO}, {"proto": PROTO + 1})):
        body = {"boot_id": f"boot-{number}", "seq": 1, "sent_us": 1} | more
        await client.publish("amends.v1.hb.n1", json.dumps(body).encode())
    async with asyncio.timeout(PATIENCE_S):
        while len(heard) < 4:
            await asyncio.sleep(0.005)
    assert (heartbeats.received, heartbeats.unspoken, heartbeats.malformed) == (4, 1, 0)


@pytest.mark.parametrize("op", ["mount", "unmount", "probe_mount", "dance"])
async def test_an_op_of_another_release_or_of_an_agent_that_mounts_nothing_is_refused(
    server: EmbeddedNats, ask: Ask, tmp_path: Path, op: str
) -> None:
    async with running(agent_in(server, tmp_path)):
        result = await ask(op=op, attachment_id="attach_a", source={"type": "nfs"}, expected=None)
    assert (result["status"], result["code"]) == ("error", "unsupported_op")


async def test_of_an_op_that_is_known_fields_that_cannot_be_read_are_an_error_and_nothing_is_done(
    server: EmbeddedNats, ask: Ask, tmp_path: Path
) -> None:
    async with running(agent_in(server, tmp_path, mounts=mounts_of(tmp_path))):
        result = await ask(op="mount", attachment_id="attach_a", source={"type": "nfs"})
        assert (result["status"], result["code"]) == ("error", "invalid_task")
        result = await ask(op="dance")
    assert (result["status"], result["code"]) == ("error", "unsupported_op")


async def test_what_cannot_be_read_is_counted_and_the_next_task_is_done(
    server: EmbeddedNats, client: Client, ask: Ask, tmp_path: Path
) -> None:
    async with running(agent_in(server, tmp_path)) as agent:
        assert (await ask())["status"] == "ok"  # from now on the server knows that it listens
        for data in (b"", b"{", b"[]", b"\xff", b'{"task_id": 1}', b"[" * 100_000):
            await client.publish("amends.v1.task.n1", data)
        assert (await ask())["status"] == "ok"
        assert agent.malformed == 6


async def test_a_disk_that_fails_answers_an_error_and_keeps_nothing(
    server: EmbeddedNats, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with running(agent_in(server, tmp_path)):
        with monkeypatch.context() as broken:
            broken.setattr(AgentStore, "keep", full)
            assert (await ask())["code"] == "agent_failed"
        assert (await ask())["status"] == "ok"


async def test_it_waits_for_a_server_and_finds_a_restarted_one_again(
    server: EmbeddedNats, ask: Ask, tmp_path: Path
) -> None:
    await server.stop()
    agent = agent_in(server, tmp_path)
    await agent.start()
    await asyncio.sleep(0.2)
    assert agent.beats == 0
    for number in range(2):
        await server.start()
        assert (await ask(task_id=f"task_{number}"))["status"] == "ok"
        await server.stop()
        await asyncio.sleep(0.1)
        silent = agent.beats
        await asyncio.sleep(0.2)
        assert agent.beats == silent  # no pile of late beats
    await agent.stop()
    await server.start()


def reconcile_call(timeout_ms: int = 5000, node_id: str = "n1") -> StepCall:
    args = {"node_id": node_id, "node_epoch": 1, "expected": {"mounts": [], "users": [USER]}}
    return StepCall(
        step_id="step_1", name="agent.reconcile", entity="node:n1", target="agent:n1", attempt=1,
        idempotency_key="k", epoch=3, args=args, trace_id="0" * 32, span_id="0" * 16, timeout_ms=timeout_ms,
    )  # fmt: skip


@pytest.fixture
async def tasks(client: Client) -> AgentTasks:
    """The runtime's side, for nodes of epoch 1."""
    tasks = AgentTasks(client, 3, lambda: 1_000_000, lambda node_id: 1)
    await tasks.start()
    return tasks


async def answered(tasks: AgentTasks, client: Client, *answers: tuple[str, bytes]) -> Outcome:
    """What becomes of a reconcile of n1 that is answered so, each answer under its node's name."""

    async def answer(message: Any) -> None:
        for node_id, data in answers:
            await client.publish(f"amends.v1.result.{node_id}", data)

    await client.subscribe("amends.v1.task.n1", cb=answer)
    return await tasks.run(reconcile_call())


def result(**fields: Any) -> bytes:
    inventory = {"mounts": [], "users": [USER], "foreign": []}
    return json.dumps({"task_id": "task_1", "status": "ok", "inventory": inventory} | fields).encode()


async def test_the_runtimes_own_side_understands_the_agent(
    server: EmbeddedNats, tasks: AgentTasks, tmp_path: Path
) -> None:
    async with running(agent_in(server, tmp_path)):
        outcome = await tasks.run(reconcile_call())
    assert outcome.kind == "done"
    assert outcome.data == {"mounts": [], "users": [USER], "foreign": []}


async def test_the_runtimes_own_side_asks_for_an_inventory_and_tells_its_own_reasons_to_nobody(
    server: EmbeddedNats, tasks: AgentTasks, client: Client, tmp_path: Path
) -> None:
    args = {"node_id": "n1", "node_epoch": 1, "asked_us": 1, "wanted": {}}
    sent = await client.subscribe("amends.v1.task.n1")
    async with running(agent_in(server, tmp_path)):
        outcome = await tasks.run(msgspec.structs.replace(reconcile_call(), name="agent.inventory", args=args))
    assert (outcome.kind, outcome.data) == ("done", {"mounts": [], "users": [USER], "foreign": []})
    assert {"asked_us", "wanted", "expected"} & json.loads((await sent.next_msg()).data).keys() == set()


async def test_an_agent_that_finds_more_than_fits_reports_what_does(
    server: EmbeddedNats, tasks: AgentTasks, tmp_path: Path
) -> None:
    mounts = mounts_of(tmp_path)
    mounts.foreign = lambda own: [f"/mnt/{number:05}/" + "x" * 300 for number in range(5000)]  # type: ignore[method-assign]
    async with running(agent_in(server, tmp_path, mounts=mounts)):
        outcome = await tasks.run(reconcile_call())
    assert (outcome.kind, len(outcome.data["foreign"])) == ("done", MAX_INVENTORY)


async def test_a_result_is_believed_only_under_the_name_of_the_node_that_was_asked(
    tasks: AgentTasks, client: Client
) -> None:
    forged = result(inventory={"mounts": [], "users": [], "foreign": []})
    outcome = await answered(tasks, client, ("n2", forged), ("n1", result(task_id="task_0")), ("n1", result()))
    assert outcome.data["users"] == [USER]


async def test_of_a_node_that_says_other_things_than_it_was_asked_little_is_read(
    tasks: AgentTasks, client: Client
) -> None:
    # given more unasked results than are read, when the right one comes behind them
    noisy = True

    async def answer(message: Any) -> None:
        for number in range(MAX_UNASKED if noisy else 0):
            await client.publish("amends.v1.result.n1", result(task_id=f"task_x{number}"))
        await client.publish("amends.v1.result.n1", result())

    await client.subscribe("amends.v1.task.n1", cb=answer)
    outcome = await tasks.run(reconcile_call())
    # then it is not heard any more, and the next task is
    assert (outcome.kind, outcome.code) == ("unknown", "agent_timeout")
    noisy = False
    assert (await tasks.run(reconcile_call())).kind == "done"


def test_an_epoch_far_above_all_that_was_seen_is_no_runtimes(tmp_path: Path) -> None:
    store = AgentStore(tmp_path)
    store.raise_epochs(1, 2**32 + 7)  # a restored database
    assert store.stale(1, 2 * 2**32) == ""
    for epochs in ((1, 2**62), (2**62, 2**32 + 7)):
        assert "no runtime's" in store.stale(*epochs)
    store.close()


NOBODYS = [
    b"",
    b"{",
    b"\xff",
    b"[" * 100_000,
    b'{"task_id":7,"status":"ok"}',
    result(message="m" * MAX_RESULT_BYTES),
    b'{"task_id":"task_1","status":"ok","inventory":' + b'{"users":' * 5000 + b"0" + b"}" * 5001,
]


@pytest.mark.parametrize("data", NOBODYS)
async def test_a_result_of_which_nobody_can_tell_the_task_ends_none(
    tasks: AgentTasks, client: Client, data: bytes
) -> None:
    outcome = await answered(tasks, client, ("n1", data), ("n1", result()))
    assert outcome.kind == "done"
    assert tasks.unasked == 1


@pytest.mark.parametrize(
    "data",
    [
        result(status="fine"),
        result(status=None),
        result(inventory=None),
        result(status="noop", inventory=None),
        result(inventory={"mounts": []}),
        result(inventory={"mounts": [], "users": [["deep"]]}),
        result(inventory={"mounts": [], "users": ["u"] * (MAX_INVENTORY + 1)}),
        result(inventory={"mounts": [], "users": ["u" * 256]}),
        result(status="error", code="no\x00code"),
    ],
)
async def test_a_malformed_result_is_an_error_and_no_empty_node(tasks: AgentTasks, client: Client, data: bytes) -> None:
    outcome = await answered(tasks, client, ("n1", data))
    assert (outcome.kind, outcome.code, outcome.data) == ("failed", "agent_malformed", {})


async def test_what_an_agent_says_reaches_rows_printable_bounded_and_without_fields_of_its_own(
    tasks: AgentTasks, client: Client
) -> None:
    nested: Any = 0
    for _ in range(100):
        nested = [nested]
    inventory = {"mounts": [], "users": [USER], "foreign": ["/mnt/a\x00b"], "more": nested}
    outcome = await answered(tasks, client, ("n1", result(inventory=inventory, holders=nested, observed={"a": nested})))
    assert outcome.data == {"mounts": [], "users": [USER], "foreign": ["/mnt/a?b"]}


async def test_an_agents_error_is_told_printable_and_short(tasks: AgentTasks, client: Client) -> None:
    outcome = await answered(tasks, client, ("n1", result(status="error", message="no\x00\n" + "x" * 5000)))
    assert (outcome.kind, outcome.code, outcome.message[:5]) == ("failed", "agent_error", "no??x")
    assert len(outcome.message) == 1000


async def test_a_task_of_a_node_that_was_retired_or_begun_anew_ends_at_once(client: Client) -> None:
    epochs: dict[str, int] = {"n2": 2}
    tasks = AgentTasks(client, 3, lambda: 1_000_000, epochs.get)
    sent = await client.subscribe("amends.v1.task.*")
    await client.flush()
    for node_id in ("n1", "n2"):
        outcome = await tasks.run(reconcile_call(60_000, node_id))
        assert (outcome.kind, outcome.code) == ("failed", "stale_epoch")
    await client.flush()
    assert sent.pending_msgs == 0, "nothing was sent to a machine that is another one"


@pytest.mark.parametrize("boot_id", ["", "b" * 129, "b\x00", "b\n", "b\u2028", "\ud800"])
async def test_a_boot_that_no_row_can_carry_is_malformed(client: Client, boot_id: str) -> None:
    heard: list[tuple[str, str]] = []
    heartbeats = Heartbeats(heard.extend)
    await heartbeats.start(client)
    for name in (boot_id, "boot-1"):
        await client.publish("amends.v1.hb.n1", json.dumps({"boot_id": name, "seq": 1, "sent_us": 1}).encode())
    async with asyncio.timeout(PATIENCE_S):
        while heartbeats.received < 2:
            await client.flush()
    assert (heartbeats.malformed, heard) == (1, [("n1", "boot-1")])


def test_the_store_keeps_a_bounded_number_of_results(tmp_path: Path) -> None:
    store = AgentStore(tmp_path)
    for number in range(KEPT_RESULTS + 5):
        store.keep(TaskResult(f"task_{number}", "ok"))
    store.close()
    again = AgentStore(tmp_path)
    assert len(again.memory.results) == KEPT_RESULTS
    assert again.result("task_4") is None
    assert again.result("task_5") is not None
    again.close()


async def test_an_agent_that_cannot_connect_can_be_stopped(tmp_path: Path) -> None:
    agent = NodeAgent("n1", ["nats://127.0.0.1:1"], tmp_path)
    await agent.start()
    await asyncio.sleep(0.1)
    async with asyncio.timeout(PATIENCE_S):
        await agent.stop()
    assert agent.beats == 0


def test_a_store_has_one_owner_and_a_damaged_one_is_not_replaced(tmp_path: Path) -> None:
    store = AgentStore(tmp_path)
    with pytest.raises(StoreUnusable, match="in use by another agent"):
        AgentStore(tmp_path)
    store.close()
    (tmp_path / "agent.json").write_text('{"node_epoch": 7')
    for _ in range(2):
        with pytest.raises(StoreUnusable, match="highest epochs"):
            AgentStore(tmp_path)
    assert (tmp_path / "agent.json").read_text() == '{"node_epoch": 7'
