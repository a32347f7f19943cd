"""Runs steps on nodes: one command each, over a lent connection, with an outcome that says what may be.

Knows no actor and no retry policy. The rule of outcomes (R02): what failed before the command was sent cannot
have run; what was sent and not answered is unknown; only the deadline is a time-out. Done is what exits with 0
and has printed the line that ends the script with this run's own nonce: forced commands, start files of a shell
and restricted shells swallow a script and exit with 0 as well.
"""

import asyncio
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

import asyncssh
import msgspec

from adapters.ssh.commands import (
    EXIT_RETRYABLE,
    EXIT_STALE,
    Code,
    Op,
    SshCommand,
    SshEndpoint,
    SshOutcome,
    Status,
    command_line,
    done_line,
    packed,
    script,
)
from adapters.ssh.connections import CannotConnectError, Connections
from adapters.ssh.keys import canonical_public_key
from adapters.ssh.session import StepSession, plain

_EXIT_CODES: Final[dict[int, Code]] = {EXIT_RETRYABLE: "ssh_retryable", EXIT_STALE: "ssh_stale_epoch"}
_NOT_RUN: Final = "exit status 0, but the script did not run to its end: is there a forced command or a start file?"


class SshClient:
    """The runtime's one way to nodes. Every `run` ends with an outcome within its time, or is cancelled."""

    def __init__(
        self,
        client_key: asyncssh.SSHKey | Path,
        *,
        connect_timeout_ms: int = 3000,
        customer_key_options: str = "restrict,pty,port-forwarding",
        max_idle_connections: int = 256,
        idle_ms: int = 5000,
    ) -> None:
        key = asyncssh.read_private_key(client_key) if isinstance(client_key, Path) else client_key
        if any(not " " <= character <= "~" for character in customer_key_options):
            raise ValueError("customer_key_options must be one line of printable ASCII")
        self._options = customer_key_options.strip()
        self._connections = Connections(key, connect_timeout_ms, max_idle_connections, idle_ms)

    @property
    def idle_connections(self) -> int:
        """How many open connections wait for their next command."""
        return len(self._connections)

    async def run(self, node_id: str, endpoint: SshEndpoint, command: SshCommand, *, timeout_ms: int) -> SshOutcome:
        """Run one step within `timeout_ms`. Raises ValueError for a malformed command or key only."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        step = _Step(self._connections, node_id, endpoint, command, self._script(command))
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                outcome = await step.run()
        except TimeoutError:
            # Before the channel was open nothing can have run, even though it was the deadline that ended it.
            sent = step.may_have_run
            words = "no end within the time" if sent else "not begun within the time"
            outcome = _outcome("unknown" if sent else "failed", "ssh_timeout", words, None, ran=sent)
        return msgspec.structs.replace(outcome, duration_us=round((loop.time() - started) * 1_000_000))

    def _script(self, command: SshCommand) -> str:
        if command.op != "key-install":
            return packed(script(command.op))
        line, _ = canonical_public_key(command.key_line)  # re-encoded here too: this is where it leaves us
        key_line = f"{self._options} {line}".strip()
        return packed(script(command.op, key_line), key_line)

    async def close(self) -> None:
        """Drop all connections. Commands under way end as unknown; later ones fail to connect."""
        await self._connections.close()


class _Step:
    """One run of one command, with the single retry that is safe."""

    def __init__(
        self, connections: Connections, node_id: str, endpoint: SshEndpoint, command: SshCommand, text: str
    ) -> None:
        nonce = secrets.token_hex(8)
        self._connections = connections
        self._node_id = node_id
        self._endpoint = endpoint
        self._op: Op = command.op
        self._line = command_line(command, nonce)
        self._done_line = done_line(command.op, nonce).encode("ascii")
        self._text = text.encode("ascii")
        self._session: StepSession | None = None

    @property
    def may_have_run(self) -> bool:
        """Whether the channel was open, after which the command may have been sent."""
        return self._session is not None and self._session.opened

    async def run(self) -> SshOutcome:
        """Run on the waiting connection, and once more on a fresh one if that turned out to be dead.

        A probe asks whether the server lets anybody in now (R08): an old connection outlives its listener.
        """
        connection = self._connections.take(self._node_id, self._endpoint) if self._op != "probe" else None
        if connection is not None:
            # A node that vanished without a word leaves us an open connection; a fresh one is given no longer.
            give_up = asyncio.get_running_loop().call_later(
                self._connections.connect_timeout_s, self._give_up, connection
            )
            try:
                outcome = await self._on(connection)
            finally:
                give_up.cancel()
            if outcome.may_have_run:
                return outcome
        try:
            connection = await self._connections.open(self._endpoint)
        except CannotConnectError as error:
            return _outcome("failed", error.code, error.message, None, ran=False)
        return await self._on(connection)

    def _give_up(self, connection: asyncssh.SSHClientConnection) -> None:
        if not self.may_have_run:
            self._connections.discard(connection)

    async def _on(self, connection: asyncssh.SSHClientConnection) -> SshOutcome:
        session = self._session = StepSession(self._done_line)
        lost = ""
        try:
            channel, _ = await connection.create_session(lambda: session, self._line, encoding=None)
            with suppress(OSError):  # it may end before it has read everything; its exit status counts
                channel.write(self._text)
                channel.write_eof()
            await session.ended
        except (asyncssh.Error, OSError) as error:
            lost = plain(str(error)) or type(error).__name__
        except BaseException:  # the deadline or a cancellation: nobody reads on, so the connection goes
            self._connections.discard(connection)
            raise
        if session.closed and session.exit_status is not None and not lost:
            self._connections.give_back(self._node_id, self._endpoint, connection)
        else:
            self._connections.discard(connection)
        return _judge(self._op, session, lost)


def _judge(op: Op, session: StepSession, lost: str) -> SshOutcome:
    status = session.exit_status
    if status == 0 and session.said_done:
        return _outcome("done", "", "", 0, ran=True)
    if status == 0:
        # Whatever answered, it may have begun with the step; a probe has nothing that could be undone.
        said = session.noise() or session.last_words()
        words = f"{_NOT_RUN} It said: {said}" if said else _NOT_RUN
        return _outcome("failed" if op == "probe" else "unknown", "ssh_not_run", words, 0, ran=True)
    if status is not None:
        words = session.last_words() or f"exit status {status}"
        return _outcome("failed", _EXIT_CODES.get(status, "ssh_step_failed"), words, status, ran=True)
    if not session.opened:
        return _outcome("failed", "ssh_connect_failed", lost or "no channel", None, ran=False)
    return _outcome("unknown", "ssh_step_failed", lost or "ended without an exit status", None, ran=True)


def _outcome(status: Status, code: Code, message: str, exit_status: int | None, *, ran: bool) -> SshOutcome:
    return SshOutcome(status, code, message, exit_status, may_have_run=ran, duration_us=0)
