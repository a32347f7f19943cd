"""The fleet as a process of its own, for the demo and for tests: started, asked in JSON lines, ended.

The process ends with its standard input, so it cannot outlive this one.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from amends.values.errors import Unavailable

PROGRAM: Final = "supervisors.fleet"
READY_WITHIN_S: Final = 60.0
ANSWER_WITHIN_S: Final = 15.0
STOP_WITHIN_S: Final = 10.0
MAX_LINE_BYTES: Final = 16 * 1024 * 1024


class Fleet:
    """A running fleet. `nodes` is what it takes to register each, by node id. Make it with `Fleet.spawn`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self.nodes: dict[str, dict[str, Any]] = {}

    @classmethod
    async def spawn(
        cls, *, nodes: int, nats_url: str, client_key_line: str, state_dir: Path, interval_ms: int = 200,
        sites: int = 2, log_file: Path | None = None, users: Mapping[str, tuple[str, str]] | None = None,
    ) -> "Fleet":  # fmt: skip
        """Start it and wait until all its machines are up; call it in the main thread. Raises Unavailable.

        `users`: the NATS user and password of each node; without them all share one connection.
        """
        with log_file.open("ab") if log_file is not None else contextlib.nullcontext() as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", PROGRAM, "--nodes", str(nodes), "--client-key-line", client_key_line,
                "--state", str(state_dir), "--interval-ms", str(interval_ms), "--sites", str(sites),
                "--nats-from-stdin",  # they hold passwords, and arguments are seen by everybody
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, limit=MAX_LINE_BYTES,
                start_new_session=True,  # a Ctrl-C is for its owner, who ends it
            )  # fmt: skip
        fleet = cls(process)
        try:
            ready = await fleet._exchange({"nats": nats_url, "users": dict(users or {})}, READY_WITHIN_S)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        fleet.nodes = {node["node_id"]: node for node in ready["nodes"]}
        return fleet

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.returncode is not None

    async def tell(self, command: str, node: str, **fields: Any) -> dict[str, Any]:
        """One command on one node and its answer. Raises ValueError if refused, Unavailable if it is gone."""
        answer = await self._exchange({"cmd": command, "node": node, **fields}, ANSWER_WITHIN_S)
        if not answer.get("ok"):
            raise ValueError(f"{command} on {node}: {answer.get('error')}")
        if "node_id" in answer:
            self.nodes[node] = {key: value for key, value in answer.items() if key != "ok"}
        return answer

    async def fault(self, node: str, op: str, kind: str, **fields: Any) -> None:
        """Let the next commands of `op` fail; fields as in `adapters.simulated.ssh_node.Fault`."""
        await self.tell("fault", node, op=op, kind=kind, **fields)

    async def clear_faults(self, node: str) -> None:
        """Nothing more goes wrong by order."""
        await self.tell("clear_faults", node)

    async def mount_fault(self, node: str, op: str, kind: str, times: int = 1) -> None:
        """Let the next mounts, unmounts or probes fail; kinds as in `adapters.simulated.mount_faults.KINDS`."""
        await self.tell("mount_fault", node, op=op, kind=kind, times=times)

    async def mount_read_only(self, node: str, *, on: bool = True) -> None:
        """All that is mounted shows as read-only, or as it is again."""
        await self.tell("mount_read_only", node, on=on)

    async def mend_mounts(self, node: str) -> None:
        """No mount fails any more, and what hung goes on."""
        await self.tell("mend_mounts", node)

    async def refuse_auth(self, node: str, *, on: bool = True) -> None:
        """Let nobody log in, or the usual ones again."""
        await self.tell("refuse_auth", node, on=on)

    async def ssh_stop(self, node: str) -> None:
        """The machine's SSH is gone."""
        await self.tell("ssh_stop", node)

    async def ssh_start(self, node: str) -> None:
        """It is back on the same port."""
        await self.tell("ssh_start", node)

    async def agent_stop(self, node: str) -> None:
        """No more heartbeats."""
        await self.tell("agent_stop", node)

    async def agent_start(self, node: str) -> None:
        """Heartbeats again, of the same boot."""
        await self.tell("agent_start", node)

    async def new_host_key(self, node: str) -> str:
        """Another host key; returns its line."""
        return str((await self.tell("new_host_key", node))["host_key"])

    async def reboot(self, node: str) -> str:
        """Another boot; returns its id."""
        return str((await self.tell("reboot", node))["boot_id"])

    async def calls(self, node: str) -> list[dict[str, Any]]:
        """The step commands that the node saw, oldest first."""
        return list((await self.tell("calls", node))["calls"])

    async def users(self, node: str) -> list[str]:
        """The accounts of the node."""
        return list((await self.tell("users", node))["users"])

    async def close(self) -> None:
        """End it, and kill it if it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _exchange(self, line: dict[str, Any], within_s: float) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        async with self._turn:
            try:
                async with asyncio.timeout(within_s):
                    stdin.write(json.dumps(line).encode() + b"\n")
                    await stdin.drain()
                    answer = await stdout.readline()
            except TimeoutError:
                self._process.kill()  # a late answer would be taken for the next one's
                raise Unavailable(f"the simulated fleet did not answer within {within_s:.0f} s") from None
            except OSError as error:
                raise Unavailable(f"the simulated fleet is gone: {error}") from error
        if not answer:
            raise Unavailable("the simulated fleet has ended; what it said stands on standard error")
        found: dict[str, Any] = json.loads(answer)
        return found
