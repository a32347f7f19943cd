"""Runners of steps, real and simulated, each with a machine behind it that can be broken."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import asyncssh
import nats
import pytest

from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.ports import free_port
from adapters.nats.agent import NodeAgent
from adapters.nats.agents import AgentTasks
from adapters.simulated.agents import AgentSteps
from adapters.simulated.machines import MachineSteps, SimulatedMachines
from adapters.simulated.ssh_node import SimulatedNode
from adapters.ssh import commands
from adapters.ssh.client import SshClient
from adapters.ssh.runner import SshRunner
from amends.ports.steps import StepCall, StepRunner
from tests.adapters.ssh.machines import Machine, OpenSsh, Simulated, new_suffix, why_no_openssh
from tests.directories import scratch

Stall = Callable[[], Any]  # an async context manager in which the machine does not answer


class Bench:
    """A runner of one epoch after the other, and steps to run: one that is done, one that fails, one that undoes."""

    def __init__(self, at_epoch: Callable[[int], StepRunner], stall: Stall, calls: "Calls") -> None:
        self.at_epoch, self.stalled, self.calls = at_epoch, stall, calls


class Calls(Protocol):
    """The steps of one kind. `stale` is the code of what comes too late, `silent` that of what is not answered."""

    stale: str
    silent: str
    absent: str

    def done(self, node_id: str = "n1", **changes: Any) -> StepCall: ...
    def fails(self) -> StepCall: ...
    def again(self) -> StepCall: ...
    def effects(self) -> int: ...


def call(name: str, args: dict[str, Any], *, epoch: int = 1, timeout_ms: int = 20_000, step: str = "1") -> StepCall:
    target = f"node:{args['node_id']}"
    return StepCall(f"step_{step}", name, target, target, args, 1, f"key_{step}", epoch, timeout_ms, "a" * 32, "b" * 16)


class SshCalls:
    stale, silent, absent = "ssh_stale_epoch", "ssh_timeout", "ssh_connect_failed"

    def __init__(self, users: Callable[[], set[str]]) -> None:
        suffix = new_suffix()
        self._key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
        self.user, self._allocation, self._users = f"am-{suffix}", f"alloc_{suffix}", users

    def _call(self, op: str, node_id: str = "n1", **changes: Any) -> StepCall:
        args = {
            "node_id": node_id,
            "user": self.user,
            "allocation": self._allocation,
            "attempt": "attempt_1",
            "key": self._key if op == "key-install" else "",
        }
        return call(f"ssh.{op}", args, **changes)

    def done(self, node_id: str = "n1", **changes: Any) -> StepCall:
        return self._call("user-create", node_id, **changes)

    def fails(self) -> StepCall:
        return self._call("key-install")

    def again(self) -> StepCall:
        return self._call("user-remove")

    def effects(self) -> int:
        return len({self.user} & self._users())


class AgentCalls:
    stale, silent, absent = "stale_epoch", "agent_timeout", "stale_epoch"

    def __init__(self, results: Callable[[], int]) -> None:
        self.effects = results

    def done(self, node_id: str = "n1", **changes: Any) -> StepCall:
        args = {"node_id": node_id, "node_epoch": 1, "expected": {"mounts": [], "users": []}}
        return call("agent.reconcile", args, **changes)

    def fails(self) -> StepCall:
        args = {"node_id": "n1", "node_epoch": 1, "expected": {"mounts": [], "users": []}}
        return call("agent.of-another-release", args, step="fails")

    def again(self) -> StepCall:
        return self.done(step="again")


# --- benches ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def ssh_in_memory() -> AsyncIterator[Bench]:
    fleet = SimulatedMachines()
    machine = fleet.add("n1")

    @asynccontextmanager
    async def stalled() -> AsyncIterator[None]:
        machine.break_next("user-create", "hang", 1)
        yield

    yield Bench(lambda epoch: MachineSteps(fleet), stalled, SshCalls(lambda: set(machine.table.users)))


@asynccontextmanager
async def ssh_to(machine: Machine) -> AsyncIterator[Bench]:
    def endpoint(node_id: str) -> dict[str, Any] | None:
        where = machine.endpoint
        found = {"host": where.host, "port": where.port, "user": where.user, "host_key": where.host_key}
        return found if node_id == "n1" else None

    runner = SshRunner(machine.client, endpoint, default_user="root")
    calls = SshCalls(machine.users)
    machine.will_make(calls.user)
    yield Bench(lambda epoch: runner, lambda: machine.stalled("user-create"), calls)
    await machine.close()


@asynccontextmanager
async def ssh_simulated() -> AsyncIterator[Bench]:
    key = asyncssh.generate_private_key("ssh-ed25519")
    node = SimulatedNode(port=free_port(), client_keys=(key.export_public_key().decode(),))
    await node.start()
    async with ssh_to(Simulated(node, SshClient(key))) as bench:
        yield bench


@asynccontextmanager
async def ssh_openssh(base: Path) -> AsyncIterator[Bench]:
    machine = OpenSsh(base, base / "state", use_pam=False)
    await machine.ready()
    async with ssh_to(machine) as bench:
        yield bench


@asynccontextmanager
async def agent_in_memory() -> AsyncIterator[Bench]:
    fleet = SimulatedMachines()
    machine = fleet.add("n1")

    @asynccontextmanager
    async def stalled() -> AsyncIterator[None]:
        machine.up = False
        yield
        machine.up = True

    def at_epoch(epoch: int) -> StepRunner:
        return AgentSteps(fleet, {"n1": 1}.get)

    yield Bench(at_epoch, stalled, AgentCalls(lambda: len(machine.agent.results)))


def agent_of(server: EmbeddedNats, base: Path) -> NodeAgent:
    return NodeAgent("n1", [server.url], base / "n1", interval_ms=20, boot_id="boot-1", users=list)


@asynccontextmanager
async def agent_on_nats(base: Path) -> AsyncIterator[Bench]:
    server = EmbeddedNats(base)
    await server.start()
    client = await nats.connect(server.url)
    agents = [agent_of(server, base)]
    await agents[-1].start()
    runners: dict[int, AgentTasks] = {}

    def at_epoch(epoch: int) -> StepRunner:
        return runners[epoch]

    for epoch in (1, 6, 7, 8):
        runners[epoch] = AgentTasks(client, epoch, lambda: 1, {"n1": 1}.get)
        await runners[epoch].start()

    @asynccontextmanager
    async def stalled() -> AsyncIterator[None]:
        await agents[-1].stop()
        yield
        agents.append(agent_of(server, base))
        await agents[-1].start()

    def results() -> int:
        store = agents[-1]._store
        return len(store.memory.results) if store is not None else 0

    yield Bench(at_epoch, stalled, AgentCalls(results))
    await agents[-1].stop()
    await client.close()
    await server.stop()


@pytest.fixture(params=["ssh in memory", "ssh simulated", "ssh openssh", "agent in memory", "agent on NATS"])
async def step_bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    base = scratch("amends-steps-")
    if request.param == "ssh openssh":
        if why := why_no_openssh():
            pytest.skip(why)
        monkeypatch.setattr(commands, "STATE_ROOT", str(base / "state"))
    made: Callable[[], AbstractAsyncContextManager[Bench]] = {
        "ssh in memory": ssh_in_memory, "ssh simulated": ssh_simulated, "agent in memory": agent_in_memory,
        "ssh openssh": lambda: ssh_openssh(base), "agent on NATS": lambda: agent_on_nats(base),
    }[request.param]  # fmt: skip
    try:
        async with made() as bench:
            yield bench
    finally:
        shutil.rmtree(base)
