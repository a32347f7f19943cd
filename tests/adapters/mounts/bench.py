"""Machines with mounts and a runtime's side to ask them: a real agent over a real NATS server, and a simulated one."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import nats
import pytest

from adapters.embedded.nats import EmbeddedNats
from adapters.nats.agent import NodeAgent
from adapters.nats.agent_plain import PlainMounts
from adapters.nats.agents import AgentTasks
from adapters.simulated.agents import AgentSteps
from adapters.simulated.machines import SimulatedMachines
from adapters.simulated.mount_faults import BrokenMounts, MountFaults
from amends.ports.mounts import Mounts
from amends.ports.steps import Outcome, StepRunner
from tests.adapters.steps import call
from tests.directories import scratch
from tests.patience import PATIENCE_S

PATH, A, B = "/mnt/data", "attach_a", "attach_b"


class Bench(Protocol):
    """One machine, `n1`."""

    def runner(self, epoch: int) -> StepRunner: ...
    def source(self, name: str) -> dict[str, Any]: ...
    def is_mounted(self, path: str) -> bool: ...
    def add_foreign(self, path: str) -> None: ...
    def is_foreign(self, path: str) -> bool: ...
    def write(self, path: str, name: str, data: bytes) -> None: ...
    def contents(self, source: str) -> dict[str, bytes]: ...
    def break_next(self, op: str, kind: str) -> None: ...
    async def restart(self) -> None: ...
    async def reboot(self) -> None: ...


def mount_args(bench: Bench, attachment: str = A, attempt: str = "task_a", **fields: Any) -> dict[str, Any]:
    """As the step of an attachment has them (actors/steps.py, OnMount)."""
    return {
        "node_id": "n1", "attachment_id": attachment, "attempt_id": attempt, "namespace_id": "ns_a", "mode": "rw",
        "mount_path": PATH, "source": bench.source("ns_a"), "node_epoch": 1, "action_id": "",
    } | fields  # fmt: skip


async def ask(
    bench: Bench, op: str, step: str, attachment: str = A, attempt: str = "task_a", *, epoch: int = 1,
    timeout_ms: int = 20_000, **fields: Any,
) -> Outcome:  # fmt: skip
    """One task on a mount, whose id is of that step."""
    args = mount_args(bench, attachment, attempt, **fields)
    return await bench.runner(epoch).run(call(f"agent.{op}", args, epoch=epoch, timeout_ms=timeout_ms, step=step))


async def reconcile(bench: Bench, step: str, *mounts: str, report_only: bool = False, kept: str = "") -> dict[str, Any]:
    """The inventory as left; `kept` stands in what is said of mounts that could not be taken away."""
    args = {"node_id": "n1", "node_epoch": 1, "expected": {"mounts": list(mounts), "users": []},
            "report_only": report_only}  # fmt: skip
    outcome = await bench.runner(1).run(call("agent.reconcile", args, step=step))
    assert (outcome.kind, kept in outcome.message, outcome.message != "") == ("done", True, kept != "")
    return outcome.data


class Simulated:
    """In memory."""

    def __init__(self) -> None:
        self.fleet = SimulatedMachines()
        self.machine = self.fleet.add("n1")

    def runner(self, epoch: int) -> StepRunner:
        return AgentSteps(self.fleet, {"n1": 1}.get)

    def source(self, name: str) -> dict[str, Any]:
        return {"type": "nfs", "server": "storage", "export": f"/srv/{name}"}

    def is_mounted(self, path: str) -> bool:
        return any(each.path == path for each in self.machine.mounts.mounted.values())

    def add_foreign(self, path: str) -> None:
        self.machine.mounts.foreign.add(path)

    def is_foreign(self, path: str) -> bool:
        return path in self.machine.mounts.foreign

    def write(self, path: str, name: str, data: bytes) -> None:
        self.machine.mounts.write(path, name, data)

    def contents(self, source: str) -> dict[str, bytes]:
        return self.fleet.contents.get(f"storage:/srv/{source}", {})

    def break_next(self, op: str, kind: str) -> None:
        self.machine.break_next(op, kind)

    async def restart(self) -> None:
        """What the agent knows is kept with the machine."""

    async def reboot(self) -> None:
        self.machine.boot_id += "-next"


class OnNats:
    """A real agent with plain mounts that break on order, and the runtime's side on a connection of its own."""

    def __init__(self, server: EmbeddedNats, base: Path) -> None:
        self.server, self.base, self.root, self.boot = server, base, base / "root", 1
        self.faults, self.late = MountFaults(), list[tuple[str, str, Outcome]]()
        self._runners: dict[int, AgentTasks] = {}
        for name in ("ns_a", "ns_b"):
            (base / name).mkdir()

    async def open(self) -> None:
        self.client = await nats.connect(self.server.url)
        for epoch in (1, 6, 7):
            self._runners[epoch] = AgentTasks(
                self.client, epoch, lambda: 1, {"n1": 1}.get, late=lambda *late: self.late.append(late)
            )
        await self._runners[1].start()
        await self._start()

    async def close(self) -> None:
        self.faults.reboot()
        await self.agent.stop()
        await self.client.close()

    async def _start(self) -> None:
        boot = f"boot-{self.boot}"
        self.mounts: Mounts = BrokenMounts(PlainMounts(self.root, self.base / "n1", boot), self.faults)
        self.agent = NodeAgent(
            "n1", [self.server.url], self.base / "n1", interval_ms=20, boot_id=boot, users=list, mounts=self.mounts
        )
        await self.agent.start()
        async with asyncio.timeout(PATIENCE_S):
            while self.agent.beats < 2:  # it has subscribed, and the server knows
                await asyncio.sleep(0.005)

    def runner(self, epoch: int) -> StepRunner:
        return self._runners[epoch]

    def source(self, name: str) -> dict[str, Any]:
        return {"type": "bind", "path": str(self.base / name)}

    def is_mounted(self, path: str) -> bool:
        return any(line.path == str(self.root) + path for line in self.mounts.table())

    def add_foreign(self, path: str) -> None:
        place = Path(str(self.root) + path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(self.base / "ns_b")

    def is_foreign(self, path: str) -> bool:
        return Path(str(self.root) + path).is_symlink()

    def write(self, path: str, name: str, data: bytes) -> None:
        (Path(str(self.root) + path) / name).write_bytes(data)

    def contents(self, source: str) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (self.base / source).iterdir()}

    def break_next(self, op: str, kind: str) -> None:
        self.faults.inject(op, kind)

    async def restart(self) -> None:
        await self.agent.stop()
        await self._start()

    async def reboot(self) -> None:
        await self.agent.stop()
        self.boot += 1
        self.faults.reboot()
        await self._start()


@asynccontextmanager
async def on_nats() -> AsyncIterator[OnNats]:
    """One with all that it needs."""
    base = scratch("amends-mounts-")
    server = EmbeddedNats(base)
    await server.start()
    bench = OnNats(server, base)
    await bench.open()
    try:
        yield bench
    finally:
        await bench.close()
        await server.stop()
        await asyncio.to_thread(shutil.rmtree, base)


@pytest.fixture(params=["simulated", "agent on NATS"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Each of them."""
    if request.param == "simulated":
        yield Simulated()
        return
    async with on_nats() as found:
        yield found


@pytest.fixture
async def real() -> AsyncIterator[OnNats]:
    """The agent alone, where what is asked is its own business."""
    async with on_nats() as found:
        yield found
