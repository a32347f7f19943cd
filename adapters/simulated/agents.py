"""Node agents of a simulated world, without NATS: a task is sent until it is answered, and answered once.

The rules are those of `adapters/nats/agents.py` on our side and of `adapters/nats/agent.py` on the node's: epochs below
the highest seen are refused, and a task that comes again gets the result that was kept.
"""

import asyncio
from collections.abc import Callable

from adapters.simulated.faults import CALM, Faults, Links
from adapters.simulated.machines import Machine, SimulatedMachines
from amends.ports.steps import Outcome, StepCall

RESEND_S = 0.5


class AgentSteps:
    """Implements `amends.ports.steps.StepRunner` for `agent.*`, for one process.

    `node_epoch` gives a node's present epoch; while `may_act` says no, nothing is sent.
    """

    def __init__(
        self, fleet: SimulatedMachines, node_epoch: Callable[[str], int | None], *,
        may_act: Callable[[], bool] = lambda: True, faults: Faults = CALM, links: Links | None = None,
    ) -> None:  # fmt: skip
        self._fleet, self._node_epoch, self._may_act = fleet, node_epoch, may_act
        self._faults, self._links = faults, links or Links()

    async def run(self, call: StepCall) -> Outcome:
        """Send the task until the agent answers, the time is over or the node is another one."""
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                await self._faults.before(call.name)
                outcome = await self._answered(call)
                await self._faults.after(call.name)
        except TimeoutError:
            return Outcome("unknown", "agent_timeout", "the node's agent gave no result in time")
        return outcome

    async def _answered(self, call: StepCall) -> Outcome:
        node_id = call.args["node_id"]
        while True:
            if self._node_epoch(node_id) != call.args["node_epoch"]:
                return Outcome("failed", "stale_epoch", "the node was retired or begun anew meanwhile")
            machine = self._fleet.machines.get(node_id)
            if machine is not None and machine.up and self._links.bus and self._may_act():
                outcome = _answer(machine, call)
                if outcome is not None:
                    return outcome
            await asyncio.sleep(RESEND_S)


def _answer(machine: Machine, call: StepCall) -> Outcome | None:
    """What the agent says, None for nothing: the task or its result is lost on the way."""
    op = call.name.removeprefix("agent.")
    agent, kind = machine.agent, machine.fault(op)
    if kind == "hang":
        return None
    if call.step_id in agent.results:
        return None if kind == "lose" else agent.results[call.step_id]
    node_epoch = call.args["node_epoch"]
    if call.epoch < agent.runtime_epoch:
        highest = f"stale runtime epoch {call.epoch}, highest seen {agent.runtime_epoch}"
        return Outcome("failed", "stale_epoch", highest)
    if node_epoch < agent.node_epoch:
        return Outcome("failed", "stale_epoch", f"stale node epoch {node_epoch}, highest seen {agent.node_epoch}")
    if kind in ("fail", "fail_mounted"):
        if kind == "fail_mounted":
            machine.mounts[call.args["attachment_id"]] = dict(call.args)
        if op == "unmount":
            return Outcome("failed", "busy", "in use", data={"observed": {"mounted": True}, "holders": ["bash 1"]})
        return Outcome("failed", "agent_failed", "fault injected")
    agent.runtime_epoch, agent.node_epoch = call.epoch, node_epoch
    if op == "reconcile":
        expected = call.args["expected"].get("mounts", [])
        machine.mounts = {key: each for key, each in machine.mounts.items() if key in expected}
        inventory = {"mounts": sorted(machine.mounts), "users": machine.customers(), "foreign": []}
        result = Outcome("done", data=inventory)
    elif op in ("mount", "probe_mount", "unmount"):
        result = _mount(machine, op, call, kind)
    else:
        result = Outcome("failed", "unsupported_op", f"this agent does not know the op {op!r}")
    agent.results[call.step_id] = result
    return None if kind == "lose" else result


def _mount(machine: Machine, op: str, call: StepCall, kind: str) -> Outcome:
    attachment_id, attempt_id = call.args["attachment_id"], call.args["attempt_id"]
    there = machine.mounts.get(attachment_id)
    if op == "mount":
        if attempt_id in machine.undone:
            return Outcome("failed", "undone", "it was unmounted", data={"observed": {"mounted": False}})
        machine.mounts[attachment_id] = dict(call.args)
    elif op == "unmount":
        machine.undone.add(attempt_id)
        if there is None:
            return Outcome("done", data={"noop": True})
        del machine.mounts[attachment_id]
    elif there is None:
        return Outcome("failed", "missing", "it is not there", data={"observed": {"mounted": False}})
    elif kind == "stale":
        return Outcome("failed", "stale", "it hangs", data={"observed": {"mounted": True}})
    return Outcome("done", data={"observed": {"mounted": op != "unmount"}})
