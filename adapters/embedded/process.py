"""One server process of ours: started in its own directory, watched, stopped within a bound.

Knows nothing of Postgres or NATS. The death signal ends the server when this process is killed; it follows
the thread that spawned it, so servers are started from the main thread.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from amends.values.errors import Unavailable

logger = logging.getLogger("amends.embedded")

LOG_LIMIT_BYTES = 16 * 1024 * 1024


class ServerFailed(Unavailable):
    """An embedded server cannot be started. The message names its log, the last lines and what to do."""


def log_tail(log: Path, lines: int = 12) -> str:
    """The last `lines` lines of `log`, or a note that there are none."""
    with contextlib.suppress(OSError):
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            tail = file.read().decode("utf-8", "replace").splitlines()[-lines:]
        if tail:
            return "\n".join(f"    {line}" for line in tail)
    return "    (empty)"


def death_signal_prefix(account: tuple[int, int] | None) -> list[str]:
    """The command to put before a server's own, so that it ends with us and runs as `account` (uid, gid).

    Raises ServerFailed when an account is needed and `setpriv` is missing; without an account a missing
    `setpriv` costs only the death signal, and the next start ends what was left.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        if account is not None:
            message = "`setpriv` is missing, and Postgres must not run as root: install util-linux (2.33 or newer),"
            raise ServerFailed(f"{message} or start Amends as an ordinary user, or name a Postgres of your own")
        logger.warning("`setpriv` is missing: after a kill -9 of this process its servers go on until the next start")
        return []
    prefix = [setpriv, "--pdeathsig", "INT"]
    if account is not None:
        prefix += [f"--reuid={account[0]}", f"--regid={account[1]}", "--clear-groups"]
    return [*prefix, "--"]


class ServerProcess:
    """A running child with its log. `stop_signals` are tried in turn, each for its seconds, then SIGKILL."""

    def __init__(self, name: str, log: Path, stop_signals: Sequence[tuple[signal.Signals, float]]) -> None:
        self.name = name
        self.log = log
        self._stop_signals = stop_signals
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server. Raises ServerFailed when there is none."""
        if self._process is None or not self.alive():
            raise ServerFailed(f"the embedded {self.name} is not running; its log is {self.log}")
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def exit_status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs or before the start."""
        return None if self._process is None else self._process.returncode

    async def spawn(
        self, command: Sequence[str], directory: Path, variables: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Start `command` in `directory`; its output is appended to the log. `variables` join its environment."""
        if threading.current_thread() is not threading.main_thread():
            logger.warning("the embedded %s is started outside the main thread and ends with that thread", self.name)
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                cwd=directory,
                env={**variables, "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C is for the runtime, which drains before it stops us
            )

    async def ended_within(self, seconds: float) -> bool:
        """Wait for the end, at most `seconds`; whether it has ended."""
        if self._process is None:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()
        return not self.alive()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has already ended."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self) -> None:
        """End the process: ask, insist, kill. Returns within the sum of the seconds and a few more."""
        for number, seconds in (*self._stop_signals, (signal.SIGKILL, 1.0)):
            if not self.alive():
                break
            self.signal(number)
            if await self.ended_within(seconds):
                break
            logger.warning("the embedded %s did not end within %s s of %s", self.name, seconds, number.name)
        self._process = None

    def failure(self, what: str, do: str) -> ServerFailed:
        """The error to raise: what happened, where the log is, its last lines, and what to do."""
        return ServerFailed(
            f"the embedded {self.name} {what}. {do}\n  The last lines of {self.log}:\n{log_tail(self.log)}"
        )
