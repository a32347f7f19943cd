"""The rental runtime on a real Postgres, with machines, agents and a broker that answer at once in this process.

So that what is measured is ours. A program makes machines, asks by command, and counts states.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import msgspec

from adapters.postgres.journal import journal_of
from adapters.postgres.lease import Lease
from adapters.simulated.agents import AgentSteps
from adapters.simulated.machines import MachineSteps, SimulatedMachines
from amends.ports.bus import Outgoing, Published
from amends.ports.steps import Outcome, StepCall, StepRunner
from amends.runtime.identity import Identity
from amends.runtime.requests import Entry
from amends.runtime.trunk import Supervisor, SupervisorSpec
from amends.values.limits import Limits, LimitValue
from supervisors.api.endpoints import checks, commands, finders
from supervisors.core import Core
from supervisors.policy_file import BUILT_IN, built_in
from supervisors.rental import RENTAL
from supervisors.timing import timing

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEGd9bAiRPwdzoHc9bXh0hUeQZEKrxfD5wyKYs6oFGcW"
TICK_S, BEAT_S = 0.01, 1.0


class Broker:
    """Acknowledges at once."""

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        """It is stored."""
        return Published("ok")

    async def publish_together(self, messages: Sequence[Outgoing]) -> Published:
        """They are stored."""
        return Published("ok")


class Notices:
    """Publishes notifications at once."""

    async def run(self, call: StepCall) -> Outcome:
        """It is sent."""
        return Outcome("done")


class Fleet:
    """A runtime with its machines. `limits` stand in for those of the production profile."""

    def __init__(self, dsn: str, limits: Mapping[str, LimitValue]) -> None:
        self.dsn = dsn
        self.machines = SimulatedMachines()
        self.stall_s = 0.0
        self.core = Core(
            built_in(), Limits({**timing("production", {}), **limits}), domain_label="site",
            policy_text=BUILT_IN.read_text(),
        )  # fmt: skip
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """As `supervisors.simulation.world.Running` does, on a real journal."""
        lease = Lease(self.dsn, "bench")
        await lease.acquire()
        await lease.prepare("bench", "0", time.time_ns() // 1000)
        core, kernel = self.core, self.core.kernel
        journal = journal_of(self.dsn, lease.epoch, kernel.domains, role=lease.role)
        await core.load(journal, lease)
        await core.watch(self.linked)
        runners: dict[str, StepRunner] = {
            "ssh": MachineSteps(self.machines), "agent": AgentSteps(self.machines, core.pool.node_epoch),
            "bus": Notices(), "bus-admin": Notices(),
        }  # fmt: skip
        core.wire(runners, Broker(), bus_is_there=lambda: True)
        table = commands((RENTAL,), checks(str, str, {}), finders(journal), {"republish": _none})
        self.endpoints = {endpoint.subject: endpoint for endpoint in table}
        self.requests = core.requests(lambda headers, role: Identity(role, role=role))
        await kernel.resume()
        tree = Supervisor(SupervisorSpec(name="bench", children=[*kernel.children(), *core.children()]))
        self.tasks += [asyncio.create_task(tree.run()), asyncio.create_task(self.beat())]
        await tree.started.wait()
        self.tasks.append(asyncio.create_task(self._tick()))
        core.pool.loaded()

    async def stop(self) -> None:
        """The end."""
        await self.core.kernel.drain(10)
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        await self.core.kernel.aclose()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Started, and ended whatever happens."""
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    def linked(self) -> bool:
        """Whether heartbeats could arrive."""
        return True

    async def beat(self) -> None:
        """The heartbeats of all machines that are up, without a broker, until cancelled."""
        while True:
            began = time.monotonic()
            for number, machine in enumerate(list(self.machines.machines.values())):
                if machine.up and machine.beats:
                    self.core.detector.heard(machine.node_id, machine.boot_id)
                if number % 500 == 499:
                    await asyncio.sleep(0)
            self.core.detector.canary()
            await asyncio.sleep(max(0.0, BEAT_S - (time.monotonic() - began)))

    async def _tick(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK_S)
            self.stall_s = max(self.stall_s, time.monotonic() - before - TICK_S)

    async def ask(self, subject: str, **body: Any) -> dict[str, Any]:
        """The data of a command that must be ok."""
        endpoint, headers = self.endpoints[subject], {"Idempotency-Key": os.urandom(8).hex()}
        while True:
            entry = self.requests.enter(endpoint, headers)
            if isinstance(entry, Entry):
                break
            await asyncio.sleep(0.05)  # throttled
        reply = await self.requests.handle(endpoint, msgspec.json.encode(body), headers, entry)
        assert reply.body["ok"], reply.body
        data: dict[str, Any] = reply.body["data"]
        return data

    def forget(self) -> None:
        """What the simulated machines and agents remember for tests alone is not the runtime's memory."""
        for machine in self.machines.machines.values():
            machine.calls.clear()
            machine.agent.results.clear()

    def count_of(self, kind: str, state: str) -> int:
        """How many are in that state, of those in memory."""
        return sum(1 for _, found in self.core.kernel.engine.store.items(kind) if found.state == state)


async def _none(*of: Any) -> dict[str, Any]:
    return {}


async def until(holds: Callable[[], bool], within_s: float = 900) -> None:
    """Look again and again until it is so."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it does not come true"
        await asyncio.sleep(0.1)


async def enlist(fleet: Fleet, names: Sequence[str]) -> None:
    """An account, and these machines in service; each is of the site before the first dash of its name."""
    await fleet.ask("cmd.account.create", account_id="acme", currency="usd")
    for start in range(0, len(names), 200):
        asked = []
        for name in names[start : start + 200]:
            machine = fleet.machines.add(name)
            ssh = {"host": name, "port": 22, "host_key": machine.host_key}
            labels = {"site": name.partition("-")[0]}
            asked.append(fleet.ask("cmd.node.register", node_id=name, ssh=ssh, labels=labels))
        await asyncio.gather(*asked)
    await until(lambda: fleet.count_of("node", "ready") == len(names))
