"""`python -m benchmarks.cascade [--nodes 5000] [--times 1]`: a whole site is lost at once, and an operator confirms it.

The rental runtime on a real Postgres with fsync on; machines, agents and broker answer at once and in this process, so
that what is measured is ours. Half of the fleet, all rented, falls silent; the guards hold it; it is confirmed; each
rental is compensated. Then the site comes back. Prints one JSON object: seconds from the confirmation to the last
compensated rental, turns, the longest time the loop stood still, memory before and after.
"""

import argparse
import asyncio
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.postgres.journal import journal_of
from adapters.postgres.lease import Lease
from adapters.simulated.agents import AgentSteps
from adapters.simulated.machines import MachineSteps, SimulatedMachines
from amends.ports.bus import Published
from amends.ports.steps import Outcome, StepCall, StepRunner
from amends.runtime.identity import Identity
from amends.runtime.requests import Entry
from amends.runtime.trunk import Supervisor, SupervisorSpec
from amends.values.limits import Limits
from supervisors.api.endpoints import checks, commands, finders
from supervisors.boot.collector import spare_collector
from supervisors.core import Core
from supervisors.policy_file import BUILT_IN, built_in
from supervisors.rental import RENTAL
from supervisors.timing import timing

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEGd9bAiRPwdzoHc9bXh0hUeQZEKrxfD5wyKYs6oFGcW"
TICK_S, BEAT_S = 0.01, 1.0
LIMITS = {"suspect_after_ms": 5000, "offline_after_ms": 10000, "allocation_deadline_ms": 600_000}


class Broker:
    """Acknowledges at once."""

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        """It is stored."""
        return Published("ok")


class Notices:
    """Publishes notifications at once."""

    async def run(self, call: StepCall) -> Outcome:
        """It is sent."""
        return Outcome("done")


class Fleet:
    """A runtime with `count` machines in each of two sites."""

    def __init__(self, dsn: str, count: int) -> None:
        self.dsn, self.count = dsn, count
        self.machines = SimulatedMachines()
        self.stall_s = 0.0
        self.core = Core(
            built_in(), Limits({**timing("production", {}), **LIMITS}), domain_label="site",
            policy_text=BUILT_IN.read_text(),
        )  # fmt: skip

    async def start(self) -> None:
        """As `supervisors.simulation.world.Running` does, on a real journal."""
        lease = Lease(self.dsn, "bench")
        await lease.acquire()
        await lease.prepare("bench", "0", time.time_ns() // 1000)
        core, kernel = self.core, self.core.kernel
        journal = journal_of(self.dsn, lease.epoch, kernel.domains, role=lease.role)
        await core.load(journal, lease)
        await core.watch(lambda: True)
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
        self.tasks = [asyncio.create_task(tree.run()), asyncio.create_task(self._beat())]
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

    async def _beat(self) -> None:
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


async def _until(holds: Callable[[], bool], within_s: float = 900) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it does not come true"
        await asyncio.sleep(0.1)


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20


async def _build(fleet: Fleet) -> list[str]:
    """Two sites; the machines of the first."""
    await fleet.ask("cmd.account.create", account_id="acme", currency="usd")
    names = [f"{site}-{number}" for site in ("a", "b") for number in range(fleet.count)]
    for start in range(0, len(names), 200):
        asked = []
        for name in names[start : start + 200]:
            machine = fleet.machines.add(name)
            ssh = {"host": name, "port": 22, "host_key": machine.host_key}
            asked.append(fleet.ask("cmd.node.register", node_id=name, ssh=ssh, labels={"site": name[0]}))
        await asyncio.gather(*asked)
    await _until(lambda: fleet.count_of("node", "ready") == len(names))
    return names[: fleet.count]


async def _rent(fleet: Fleet) -> None:
    """All machines of the first site."""
    for start in range(0, fleet.count, 100):
        await asyncio.gather(*(
            fleet.ask("cmd.allocation.request", account_id="acme", ssh_public_key=KEY, node_labels={"site": "a"},
                      rate_uminor_per_hour=10**12)
            for _ in range(start, min(start + 100, fleet.count))
        ))  # fmt: skip
    await _until(lambda: fleet.count_of("allocation", "active") == fleet.count)


async def _cascade(fleet: Fleet, site: list[str]) -> dict[str, Any]:
    """The site is lost, confirmed, compensated, and comes back."""
    memory, engine, count = _rss(), fleet.core.kernel.engine, fleet.count
    for name in site:
        fleet.machines.machines[name].up = False
    await _until(lambda: len(fleet.core.pool.held_nodes("a", None)) == count)
    await asyncio.sleep(LIMITS["offline_after_ms"] / 1000)
    held = fleet.count_of("node", "suspect")
    turns, fleet.stall_s, began = engine.turns, 0.0, time.perf_counter()
    await fleet.ask("ops.detector.confirm", domain="a", reason="the hall has no power")
    await _until(lambda: fleet.count_of("allocation", "active") == 0)
    took, stall_s = time.perf_counter() - began, fleet.stall_s
    await _until(lambda: engine.writer.idle)
    result = {
        "held_before": held, "confirmed_to_compensated_s": round(took, 2),
        "compensations_per_s": round(count / took), "turns": engine.turns - turns,
        "loop_stall_ms": round(stall_s * 1000), "rss_before_mib": memory, "rss_after_mib": _rss(),
        "lost": fleet.count_of("node", "offline"),
    }  # fmt: skip
    fleet.stall_s, began = 0.0, time.perf_counter()
    for name in site:
        fleet.machines.machines[name].up = True
    await _until(lambda: fleet.count_of("node", "ready") == 2 * count)
    return result | {
        "back_in_service_s": round(time.perf_counter() - began, 2),
        "return_loop_stall_ms": round(fleet.stall_s * 1000), "rss_end_mib": _rss(),
    }  # fmt: skip


async def measure(count: int, times: int) -> list[dict[str, Any]]:
    """So many cascades, one after the other, in one process."""
    with tempfile.TemporaryDirectory(prefix="amends-bench-") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - the server of a root user runs under another account
        postgres = EmbeddedPostgres(Path(folder))
        await postgres.start()
        try:
            fleet = Fleet(postgres.dsn, count)
            await fleet.start()
            site, found = await _build(fleet), []
            for number in range(times):
                await _rent(fleet)
                if not number:
                    spare_collector()
                found.append(await _cascade(fleet, site))
                fleet.forget()
            await fleet.stop()
            return found
        finally:
            await postgres.stop()


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cascade")
    parser.add_argument("--nodes", type=int, default=5000, help="machines of the site that is lost; as many live on")
    parser.add_argument("--times", type=int, default=1, help="cascades in one process, to see whether memory grows")
    options = parser.parse_args()
    print(json.dumps({"nodes": options.nodes, "cascades": uvloop.run(measure(options.nodes, options.times))}))


if __name__ == "__main__":
    main()
