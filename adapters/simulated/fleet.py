"""A fleet of simulated machines that takes commands as JSON lines: what breaks next, and what was seen.

`COMMANDS` is the whole language; supervisors/fleet.py makes a program of it. Knows no bus.
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from adapters.simulated.faults import Fault as MountFault
from adapters.simulated.machine import AgentFactory, Machine
from adapters.simulated.ssh_node import Fault

KEPT_CALLS: Final = 10_000
Answer = dict[str, Any]


class FleetCommandError(Exception):
    """A command line that cannot be done; the message is the answer."""


class Fleet:
    """`nodes` machines below `state_dir`, spread over `sites` values of the label `site`."""

    def __init__(
        self, nodes: int, state_dir: Path, *, client_key_line: str, agent: AgentFactory,
        free_port: Callable[[], int], sites: int = 2, prefix: str = "node-",
    ) -> None:  # fmt: skip
        self.machines: dict[str, Machine] = {}
        for number in range(1, nodes + 1):
            node_id = f"{prefix}{number}"
            labels = {"site": f"site-{(number - 1) % sites + 1}", "world": "simulated"}
            self.machines[node_id] = Machine(
                node_id, state_dir / node_id, labels, client_keys=(client_key_line,), agent=agent, free_port=free_port
            )

    async def start(self) -> Answer:
        """Start all; returns the line that says so."""
        for machine in self.machines.values():
            await machine.start()
        return {"ready": True, "nodes": [machine.describe() for machine in self.machines.values()]}

    async def stop(self) -> None:
        """Stop all; what they keep stays."""
        for machine in self.machines.values():
            await machine.stop()

    async def answer(self, line: bytes) -> Answer:
        """Do one command: `{"cmd": …, "node": …}`. A wrong one is answered, never raised."""
        try:
            command = msgspec.json.decode(line, type=dict[str, Any])
            act = COMMANDS.get(command.get("cmd", ""))
            if act is None:
                raise FleetCommandError(f"cmd must be one of {', '.join(COMMANDS)}")
            machine = self.machines.get(command.get("node", ""))
            if machine is None:
                raise FleetCommandError(f"there is no node {command.get('node')!r}")
            answer = await act(machine, {k: v for k, v in command.items() if k not in ("cmd", "node")})
        except (FleetCommandError, msgspec.MsgspecError, UnicodeDecodeError, OSError, TypeError, ValueError) as error:
            return {"ok": False, "error": str(error)}
        del machine.ssh.calls[:-KEPT_CALLS]
        return {"ok": True, **answer}


async def _fault(machine: Machine, fields: Mapping[str, Any]) -> Answer:
    rest = dict(fields)
    op = rest.pop("op", None)
    if not isinstance(op, str):
        raise FleetCommandError("a fault needs the op it befalls")
    machine.ssh.inject(op, msgspec.convert(rest, Fault))
    return {}


async def _clear_faults(machine: Machine, _fields: Mapping[str, Any]) -> Answer:
    machine.ssh.faults.clear()
    return {}


async def _mount_fault(machine: Machine, fields: Mapping[str, Any]) -> Answer:
    rest = dict(fields)
    op, fault = str(rest.pop("op", "")), msgspec.convert(rest, MountFault)
    machine.mount_faults.inject(op, fault.kind, fault.times)
    return {}


async def _mount_read_only(machine: Machine, fields: Mapping[str, Any]) -> Answer:
    machine.mount_faults.read_only = bool(fields.get("on", True))
    return {}


async def _mend_mounts(machine: Machine, _fields: Mapping[str, Any]) -> Answer:
    machine.mount_faults.mend()
    return {}


async def _refuse_auth(machine: Machine, fields: Mapping[str, Any]) -> Answer:
    machine.ssh.refuse_auth = bool(fields.get("on", True))
    return {}


async def _add_foreign(machine: Machine, fields: Mapping[str, Any]) -> Answer:
    machine.ssh.table.add_foreign(str(fields["user"]) if "user" in fields else "somebody")
    return {}


async def _calls(machine: Machine, _fields: Mapping[str, Any]) -> Answer:
    return {"calls": msgspec.to_builtins(machine.ssh.calls[-KEPT_CALLS:])}


async def _users(machine: Machine, _fields: Mapping[str, Any]) -> Answer:
    return {"users": sorted(machine.ssh.table.users)}


def _does(
    act: Callable[[Machine], Awaitable[None]],
) -> Callable[[Machine, Mapping[str, Any]], Awaitable[Answer]]:
    async def do(machine: Machine, _fields: Mapping[str, Any]) -> Answer:
        await act(machine)
        return machine.describe()

    return do


COMMANDS: dict[str, Callable[[Machine, Mapping[str, Any]], Awaitable[Answer]]] = {
    "fault": _fault,
    "clear_faults": _clear_faults,
    "mount_fault": _mount_fault,
    "mount_read_only": _mount_read_only,
    "mend_mounts": _mend_mounts,
    "refuse_auth": _refuse_auth,
    "add_foreign": _add_foreign,
    "ssh_stop": _does(lambda machine: machine.ssh.stop()),
    "ssh_start": _does(lambda machine: machine.start_ssh()),
    "agent_stop": _does(lambda machine: machine.stop_agent()),
    "agent_start": _does(lambda machine: machine.start_agent()),
    "new_host_key": _does(lambda machine: machine.change_host_key()),
    "reboot": _does(lambda machine: machine.reboot()),
    "calls": _calls,
    "users": _users,
}
