"""Who owns a state directory: one runtime at a time, and no server of a dead one.

The lock is held by the open file and falls with our process, also on kill -9; so whoever has it may end what
an earlier owner left behind. Servers are recognised by their program and by the directory they run in: an operator's
shell in the same directory is none.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
from pathlib import Path

from adapters.embedded.process import ServerFailed, logger

PROC = Path("/proc")
POLL_S = 0.02
PATIENCE_S = 3.0  # an owner that was killed is gone by then; one that drains takes longer
LAUNCHER = "setpriv"  # what a server's process is for a moment, before it is the server


class OwnerLock:
    """An exclusive lock on a file. The file says who has it; what counts is the lock.

    `drain_s`: how long its owner may take to let go once it was told to stop.
    """

    def __init__(self, path: Path, drain_s: float = 0.0) -> None:
        self._path, self._drain_s = path, drain_s
        self._descriptor: int | None = None

    async def acquire(self) -> None:
        """Take the lock, making its directory; idempotent.

        Raises ServerFailed when another process keeps it for that and `PATIENCE_S`, or the directory cannot be used.
        """
        if self._descriptor is not None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            do = "use a state_dir that this user may write"
            raise ServerFailed(f"{self._path.parent} cannot be used: {error.strerror}; {do}") from error
        try:
            await self._locked(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    async def _locked(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S + self._drain_s
        said = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                if not said:
                    logger.warning("waiting for the process %s, which has %s", owner, self._path.parent)
                said = True
                if loop.time() > deadline:
                    what = f"{self._path.parent} is in use by the process {owner}"
                    raise ServerFailed(f"{what}; stop that one or use another state_dir") from None
                await asyncio.sleep(POLL_S)
            else:
                return

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def processes_in(directory: Path, program: str) -> dict[int, str]:
    """Live processes (no zombies) of `program` whose working directory is `directory`: pid → command line.

    Read from /proc; where there is none, or for other users' processes, nothing is found.
    """
    found: dict[int, str] = {}
    wanted = os.path.realpath(directory)
    if not PROC.is_dir():
        return found
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if str((entry / "cwd").readlink()) == wanted and _program(entry) in (program, LAUNCHER):
                    command = (entry / "cmdline").read_bytes()
                    found[int(entry.name)] = command.replace(b"\0", b" ").decode("utf-8", "surrogateescape")
    return found


def _program(process: Path) -> str:
    """The name of the file that it runs; one that an upgrade has replaced is marked by the kernel."""
    return (process / "exe").readlink().name.removesuffix(" (deleted)")


async def end_leftovers(
    name: str, directory: Path, *, program: str, grace_s: float = 5.0, quit_signal: signal.Signals
) -> None:
    """Wait for servers that an earlier owner left in `directory`, and end those that stay after `grace_s`.

    Only to be called with the owner's lock. A process is signalled only when its working directory is ours
    and its own command line names the directory; its children end with it. Raises ServerFailed when something
    is still there in the end.
    """
    loop = asyncio.get_running_loop()
    steps: list[tuple[signal.Signals | None, float]] = [
        (None, grace_s), (signal.SIGINT, 10.0), (quit_signal, 5.0), (signal.SIGKILL, 5.0),
    ]  # fmt: skip
    left: dict[int, str] = {}
    for number, seconds in steps:
        deadline = loop.time() + seconds
        left = processes_in(directory, program)
        for pid, command in left.items():
            if number is not None and str(directory) in command:
                logger.warning("ending the embedded %s of an earlier run, process %d, by %s", name, pid, number.name)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        while left and loop.time() < deadline:
            await asyncio.sleep(POLL_S)
            left = processes_in(directory, program)
        if not left:
            return
    raise ServerFailed(f"processes {sorted(left)} still run in {directory}; end them and start again")
