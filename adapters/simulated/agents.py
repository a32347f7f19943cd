"""Node agents of a simulated world, without NATS: a task is sent until it is answered, and answered once.

The rules are those of `adapters/nats/agents.py` on our side and of `adapters/nats/agent.py` on the node's: epochs below
the highest seen are refused, and a task that comes again gets the result that was kept.
"""

import asyncio
from collections.abc import Callable

from adapters.simulated.faults import CALM, Faults, Links
from adapters.simulated.machine_mounts import FAULTS as MOUNT_OPS
from adapters.simulated.machines import SLOW_S, Machine, SimulatedMachines
from amends.ports.steps import Outcome, StepCall

RESEND_S = 0.5
Late = Callable[[str, str, Outcome], None]


class AgentSteps:
    """Implements `amends.ports.steps.StepRunner` for `agent.*`, for one process.

    `node_epoch` gives a node's present epoch; while `may_act` says no, nothing is sent. A result that nobody waits for
    any more goes to `late`, with node and task.
    """

    def __init__(
        self, fleet: SimulatedMachines, node_epoch: Callable[[str], int | None], *,
        may_act: Callable[[], bool] = lambda: True, faults: Faults = CALM, links: Links | None = None,
        late: Late | None = None,
    ) -> None:  # fmt: skip
        self._fleet, self._node_epoch, self._may_act = fleet, node_epoch, may_act
        self._faults, self._links, self._late = faults, links or Links(), late

    async def run(self, call: StepCall) -> Outcome:
        """Send the task until the agent answers, the time is over or the node is another one."""
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                await self._faults.before(call.name)
                outcome = await self._answered(call)
                await self._faults.after(call.name)
        except TimeoutError:
            self._tell_late(call)
            return Outcome("unknown", "agent_timeout", "the node's agent gave no result in time")
        return outcome

    def _tell_late(self, call: StepCall) -> None:
        """What comes when nobody waits any more, by itself."""
        machine = self._fleet.machines.get(call.args["node_id"])
        if self._late is not None and machine is not None and call.step_id in machine.agent.late:
            machine.agent.late.remove(call.step_id)
            task_id = "task_" + call.step_id.partition("_")[2]
            outcome = machine.agent.results[call.step_id]
            asyncio.get_running_loop().call_soon(self._late, machine.node_id, task_id, outcome)

    async def _answered(self, call: StepCall) -> Outcome:
        node_id = call.args["node_id"]
        while True:
            if self._node_epoch(node_id) != call.args["node_epoch"]:
                return Outcome("failed", "stale_epoch", "the node was retired or begun anew meanwhile")
            machine = self._fleet.machines.get(node_id)
            if machine is not None and machine.up and self._links.bus and self._may_act():
                outcome = await _answer(machine, call)
                if outcome is not None:
                    return outcome
            await asyncio.sleep(RESEND_S)


async def _answer(machine: Machine, call: StepCall) -> Outcome | None:
    """What the agent says, None for nothing: the task or its result is lost on the way."""
    op = call.name.removeprefix("agent.")
    agent, kind = machine.agent, machine.fault(op)
    if kind == "hang":
        return None
    if kind == "slow":
        await asyncio.sleep(SLOW_S)
    if call.step_id in agent.results:
        return None if kind == "lose" or call.step_id in agent.late else agent.results[call.step_id]
    node_epoch = call.args["node_epoch"]
    if call.epoch < agent.runtime_epoch:
        highest = f"stale runtime epoch {call.epoch}, highest seen {agent.runtime_epoch}"
        return Outcome("failed", "stale_epoch", highest)
    if node_epoch < agent.node_epoch:
        return Outcome("failed", "stale_epoch", f"stale node epoch {node_epoch}, highest seen {agent.node_epoch}")
    if kind == "refuse" or (kind == "fail" and op not in MOUNT_OPS):
        return Outcome("failed", "agent_failed", "fault injected")
    agent.runtime_epoch, agent.node_epoch = call.epoch, node_epoch
    if op == "inventory" and not machine.agent.old:
        result = _inventory(machine)
    elif op == "reconcile":
        result = _reconciled(machine, call)
    elif op in MOUNT_OPS:
        result = machine.mounts.act(op, call.args, kind)
    else:
        result = Outcome("failed", "unsupported_op", f"this agent does not know the op {op!r}")
    agent.results[call.step_id] = result
    if kind == "late":
        agent.late.add(call.step_id)
    return None if kind in ("lose", "late") else result


def _reconciled(machine: Machine, call: StepCall) -> Outcome:
    mounts = machine.mounts
    if not call.args.get("report_only", False):
        mounts.take_away(call.args["expected"].get("mounts", []))
    return _inventory(machine)


def _inventory(machine: Machine) -> Outcome:
    mounts = machine.mounts
    found = {"mounts": sorted(mounts.mounted), "users": machine.customers(), "foreign": sorted(mounts.foreign)}
    return Outcome("done", data=found)
