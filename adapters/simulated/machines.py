"""The machines of a simulated world, without sockets: steps over SSH on tables of users.

The rules are those of `node_users`, which a real machine's scripts keep too; outcomes are those of the SSH adapter.
"""

import asyncio
import base64

from msgspec import Struct, field

from adapters.simulated.faults import CALM, FaultQueue, Faults
from adapters.simulated.machine_mounts import MachineMounts
from adapters.simulated.node_users import LATE, RETRYABLE, NodeCommand, UserTable
from amends.ports.steps import Outcome, StepCall

SLOW_S = 1.0
CODES = {LATE: "ssh_stale_epoch", RETRYABLE: "ssh_retryable"}


class Agent(Struct):
    """What a machine's agent remembers: the highest epochs, and its results by task."""

    node_epoch: int = 0
    runtime_epoch: int = 0
    results: dict[str, Outcome] = {}
    old: bool = False  # of a release that knows no question for its inventory
    late: set[str] = field(default_factory=set)  # of those, what is said when nobody waits any more


class Machine:
    """One machine; `boot_id` changes with a reboot, `up` is false while it answers nothing."""

    def __init__(self, node_id: str, contents: dict[str, dict[str, bytes]] | None = None) -> None:
        self._mounts, self._mounted_in = MachineMounts({} if contents is None else contents), f"boot-{node_id}"
        self.node_id, self.boot_id, self.up, self.beats = node_id, f"boot-{node_id}", True, True
        self.table, self.agent = UserTable(), Agent()
        self.calls: list[tuple[str, str]] = []  # (op, user) of what was applied
        self.late: list[tuple[str, str]] = []  # of what came of an older epoch or of an attempt that was undone
        self.laid = FaultQueue()

    @property
    def host_key(self) -> str:
        """What it shows."""
        return f"ssh-ed25519 {base64.b64encode(self.node_id.encode()).decode()}"

    @property
    def mounts(self) -> MachineMounts:
        """What is mounted in this boot."""
        if self._mounted_in != self.boot_id:
            self._mounted_in = self.boot_id
            self._mounts.reboot()
        return self._mounts

    def break_next(self, op: str, kind: str, times: int = 1) -> None:
        """Let something go wrong with the next calls of that op.

        fail, lose (done, reply lost), hang, slow, refuse, other_key (it shows another host key); of an agent's mounts
        also fail_mounted (says error, is mounted), busy, stale, ro, missing, late (done, and said when nobody waits).
        """
        self.laid.add(op, kind, times)

    def mend(self) -> None:
        """Nothing goes wrong any more."""
        self.laid.clear()

    def fault(self, op: str) -> str:
        """The kind of the fault that meets this call, "" for none."""
        return self.laid.take(op)

    def customers(self) -> list[str]:
        """The accounts that Amends has made."""
        return sorted(name for name in self.table.users if name.startswith("am-"))


class SimulatedMachines:
    """The fleet: what is kept when a runtime dies."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.contents: dict[str, dict[str, bytes]] = {}  # of what is mounted, by source: no failure may change it

    def add(self, node_id: str) -> Machine:
        """One more."""
        machine = self.machines[node_id] = Machine(node_id, self.contents)
        return machine


class MachineSteps:
    """Implements `amends.ports.steps.StepRunner` for `ssh.*`, for one process."""

    def __init__(self, fleet: SimulatedMachines, faults: Faults = CALM) -> None:
        self._fleet, self._faults = fleet, faults
        self.begun = 0

    async def run(self, call: StepCall) -> Outcome:
        """One try of a step; a lost reply is what nobody knows."""
        machine = self._fleet.machines.get(call.args["node_id"])
        self.begun += 1
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                await self._faults.before(call.name)
                outcome = await self._act(machine, call)
                await self._faults.after(call.name)
        except TimeoutError:
            return Outcome("unknown", "ssh_timeout", "no answer in time")
        return outcome

    async def _act(self, machine: Machine | None, call: StepCall) -> Outcome:
        if machine is None or not machine.up:
            return Outcome("failed", "ssh_connect_failed", "connection refused", may_have_run=False)
        op = call.name.removeprefix("ssh.")
        kind = machine.fault(op)
        if kind == "refuse":
            return Outcome("failed", "ssh_connect_failed", "connection refused", may_have_run=False)
        if kind == "other_key":
            return Outcome("failed", "ssh_host_key_mismatch", "it shows another host key", may_have_run=False)
        if kind == "fail":
            return Outcome("failed", "ssh_step_failed", "fault injected", data={"exit_status": 1})
        if kind == "hang":
            await asyncio.get_running_loop().create_future()  # until the call's time is over
        if kind == "slow":
            await asyncio.sleep(SLOW_S)
        args = call.args
        command = NodeCommand(
            op, args.get("user", "-"), args.get("allocation", "-"), args.get("attempt", "-"), call.epoch,
            args.get("key", ""),
        )  # fmt: skip
        status, words = machine.table.apply(command)
        (machine.late if status == LATE else machine.calls).append((op, command.user))
        if kind == "lose":
            return Outcome("unknown", "ssh_step_failed", "the connection was lost")
        if status == 0:
            return Outcome("done", data={"exit_status": 0})
        return Outcome("failed", CODES.get(status, "ssh_step_failed"), words, data={"exit_status": status})
