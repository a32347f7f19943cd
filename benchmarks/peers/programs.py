"""Programs of the peers as children: started in a group of their own, which ends with its context whatever happened."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from adapters.embedded.process import death_signal_prefix, log_tail

LINE_LIMIT_BYTES = 1 << 24  # the latencies of a run are one line
GRACE_S = 15.0


class Broken(Exception):
    """A peer's program did not do what it was to do. The message has the last lines of its log."""


class Program:
    """A child that speaks in lines; what else it says is in its log."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    async def tell(self, line: str) -> None:
        """Write it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        with suppress(ConnectionError):  # it has ended, as `hear` will say
            await self._process.stdin.drain()

    async def hear(self) -> str:
        """Its next line. Raises Broken when there is none."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise self.broken("ended")
        return line.decode()

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    def broken(self, what: str) -> Broken:
        """The error to raise."""
        return Broken(f"{self.name} {what}; the last lines of its log:\n{log_tail(self._log)}")


@asynccontextmanager
async def program(
    command: Sequence[str],
    log: Path,
    *,
    cwd: Path,
    variables: Mapping[str, str] = MappingProxyType({}),
    speaks: bool = False,
) -> AsyncIterator[Program]:
    """Run `command`, and end it and all that it started. Where it speaks its output is heard, else it is logged."""
    with log.open("ab") as said:
        process = await asyncio.create_subprocess_exec(
            *death_signal_prefix(None),
            *command,
            cwd=cwd,
            env={**os.environ, "TMPDIR": str(log.parent), **variables},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE if speaks else said,
            stderr=said,
            start_new_session=True,
            limit=LINE_LIMIT_BYTES,
        )
    try:
        yield Program(log.stem, process, log)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask the group, then kill what is left of it."""
    _signal(process.pid, signal.SIGTERM)
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE_S):
            await process.wait()
    _signal(process.pid, signal.SIGKILL)
    await process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
