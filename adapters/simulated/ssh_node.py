"""One rentable machine, simulated: an SSH server that takes the runtime's step commands and nothing else.

For the demo and for tests; many of them live in one process. It knows the command line of the contract and
the rules of `node_users`, not the scripts: of standard input it reads the customer's key line alone.
"""

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import asyncssh
import msgspec

from adapters.simulated.node_users import NodeCommand, UserTable

_COMMAND: Final = re.compile(
    r"env AMENDS_OP=(probe|user-create|key-install|user-lock|user-remove) AMENDS_USER=(-|am-[0-9a-z]{26}) "
    r"AMENDS_ALLOCATION=(-|alloc_[0-9a-z]{26}) AMENDS_ATTEMPT=(-|[a-z0-9][a-z0-9_-]{0,63}) "
    r"AMENDS_EPOCH=([0-9]{1,18}) AMENDS_NONCE=([0-9a-f]{16}) sh -s"
)
_KEY_LINE: Final = re.compile(r"^AMENDS_KEY_LINE='([^'\n]*)'$", re.MULTILINE)

FaultKind = Literal[
    "exit", "delay", "drop_before", "drop_after", "no_exit_status", "hang", "stderr", "not_run", "no_line", "noise",
]  # fmt: skip


class Call(msgspec.Struct, frozen=True):
    """One step command as it was seen; `exit` is None if the node gave no exit status."""

    op: str
    user: str
    attempt: str
    epoch: int
    exit: int | None
    at_us: int


class Fault(msgspec.Struct):
    """What goes wrong with the next `times` commands of one op.

    `exit`: ends with `exit_status`, nothing applied · `delay`: waits `seconds` first · `drop_before` and
    `drop_after`: the connection dies before or after the step is applied · `no_exit_status`: applied, and the
    channel closed without one · `hang`: nothing happens any more · `stderr`: applied, then `text` on standard
    error and `exit_status` · `not_run`: nothing applied, `text` on standard output and exit status 0, as a forced
    command does or a shell that does not read · `no_line`: applied, and so likewise · `noise`: applied, and `text`
    stands on standard output before the line that ends a script.
    """

    kind: FaultKind
    times: int = 1
    exit_status: int = 1
    seconds: float = 0.0
    text: str = ""


class SimulatedNode:
    """A machine on a loopback address. `client_keys`: the OpenSSH public lines that may log in as root; none: any."""

    def __init__(
        self,
        *,
        client_keys: tuple[str, ...] = (),
        file: Path | None = None,
        host_key: asyncssh.SSHKey | None = None,
        port: int = 0,
        address: str = "127.0.0.1",
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.port = port  # 0: the kernel chooses at the first start; the same ever after
        self.address = address
        self.table = UserTable(file)
        self.calls: list[Call] = []
        self.faults: dict[str, list[Fault]] = {}
        self.refuse_auth = False
        self._key = host_key or asyncssh.generate_private_key("ssh-ed25519")
        self._root_keys = [asyncssh.import_public_key(line) for line in client_keys]
        self._now_us = now_us
        self._listener: asyncssh.SSHAcceptor | None = None
        self._connections: set[asyncssh.SSHServerConnection] = set()

    @property
    def host_key(self) -> str:
        """The OpenSSH public line of the host key that the node shows."""
        return self._key.export_public_key("openssh").decode("ascii").strip()

    async def start(self) -> None:
        """Listen; after a stop again on the same port."""
        if self._listener is not None:
            return
        self._listener = await asyncssh.listen(
            self.address,
            self.port,
            reuse_address=True,
            config=None,
            server_factory=lambda: _Login(self, self._connections),
            server_host_keys=[self._key],
            process_factory=self._serve,
            encoding=None,
            line_editor=False,
            allow_pty=False,
            agent_forwarding=False,
            gss_host=None,
        )
        self.port = self._listener.get_port()

    async def stop(self) -> None:
        """Fall silent: the listener and every connection are gone at once, as when a machine dies."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        listener.close()
        gone = list(self._connections)
        for connection in gone:
            connection.abort()  # closing a listener leaves them open
        await listener.wait_closed()
        for connection in gone:
            await connection.wait_closed()

    async def change_host_key(self, kind: str = "ssh-ed25519") -> None:
        """Come back with another host key, as a machine does that was installed anew, or is another one."""
        await self.stop()
        self._key = asyncssh.generate_private_key(kind)
        await self.start()

    def inject(self, op: str, fault: Fault) -> None:
        """Let something go wrong with the next commands of `op`, after the faults already waiting for it."""
        self.faults.setdefault(op, []).append(fault)

    def may_enter(self, user: str, key: asyncssh.SSHKey) -> bool:
        """Say whether this key opens this account now."""
        if self.refuse_auth:
            return False
        if user == "root":
            return not self._root_keys or key in self._root_keys
        line = self.table.key_of(user)
        return bool(line) and key == asyncssh.import_public_key(" ".join(line.split(" ")[-2:]))

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.get_extra_info("username") != "root":
            process.exit(0)  # a customer's session: that it came about is all that a test can see
            return
        match = _COMMAND.fullmatch(process.command or "")
        if match is None:
            process.stderr.write(b"not an Amends command\n")
            process.exit(127)
            return
        sent = (await process.stdin.read()).decode("utf-8", errors="replace")
        key = _KEY_LINE.search(sent)
        op, user, allocation, attempt, epoch, nonce = match.groups()
        command = NodeCommand(op, user, allocation, attempt, int(epoch), key[1] if key else "")
        await self._run(process, command, self._next_fault(op), f"amends-done {op} {nonce}\n")

    async def _run(
        self, process: asyncssh.SSHServerProcess[bytes], command: NodeCommand, fault: Fault | None, done_line: str
    ) -> None:
        kind = fault.kind if fault is not None else ""
        if fault is not None and kind == "delay":
            await asyncio.sleep(fault.seconds)
        if kind in {"hang", "drop_before"}:
            self._record(command, None)
            if kind == "drop_before":
                self._abort(process)
            else:
                await process.wait_closed()
            return
        if fault is not None and kind == "exit":
            status, words = fault.exit_status, fault.text or "fault injected"
        elif kind == "not_run":
            status, words = 0, ""
        else:
            status, words = self.table.apply(command)
            if fault is not None and kind == "stderr":
                status, words = fault.exit_status, fault.text
        output = fault.text if fault is not None and kind in {"not_run", "no_line", "noise"} else ""
        if status == 0 and kind not in {"exit", "stderr", "not_run", "no_line"}:
            output += done_line
        silent = kind in {"drop_after", "no_exit_status"}
        self._record(command, None if silent else status)
        if kind == "drop_after":
            self._abort(process)
        elif kind == "no_exit_status":
            process.close()
        else:
            process.stdout.write(output.encode("utf-8", errors="surrogateescape"))
            process.stderr.write(words.encode("utf-8", errors="surrogateescape") + b"\n" if words else b"")
            process.exit(status)

    def _next_fault(self, op: str) -> Fault | None:
        waiting = self.faults.get(op)
        if not waiting:
            return None
        fault = waiting[0]
        fault.times -= 1
        if fault.times <= 0:
            waiting.pop(0)
        return fault

    def _record(self, command: NodeCommand, status: int | None) -> None:
        self.calls.append(Call(command.op, command.user, command.attempt, command.epoch, status, self._now_us()))

    def _abort(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.channel.get_connection().abort()


class _Login(asyncssh.SSHServer):
    """Who may log in to a simulated node, and which connections it has."""

    def __init__(self, node: SimulatedNode, connections: set[asyncssh.SSHServerConnection]) -> None:
        self._node = node
        self._connections = connections
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Count the connection, so that a dying machine can take it along."""
        self._connection = conn
        self._connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._connection is not None:
            self._connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        """Nobody enters without a key."""
        return True

    def public_key_auth_supported(self) -> bool:
        """Keys are the only way in."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Ask the machine."""
        return self._node.may_enter(username, key)
