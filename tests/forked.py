"""Our programs as processes that need not import everything first: forked from one that has, a parent per worker.

    process = await python("-m", "supervisors.boot", "run", …, stdout=PIPE)     # as `create_subprocess_exec` gives it

What a start does after its imports is done in full: arguments, environment, files, signals and the exit are its own.
"""

import asyncio
import atexit
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from tests.patience import PATIENCE_S

PIPE, STDOUT = subprocess.PIPE, subprocess.STDOUT
ROOT = Path(__file__).parents[1]
MOST = 1 << 20  # bytes of a request: arguments and environment


class Pipe:
    """The reading end of a pipe in this event loop."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "rb", 0)
        self.reader = asyncio.StreamReader()

    async def open(self) -> None:
        protocol = asyncio.StreamReaderProtocol(self.reader)
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self._file)

    def end(self) -> None:
        """Take what is in it and close it; a grandchild may hold its other end for ever."""
        while not self._transport.is_closing() and (data := self._file.read(65536)):
            self.reader.feed_data(data)
        self.reader.feed_eof()
        self._transport.close()


class Process:
    """A forked process; the part of `asyncio.subprocess.Process` that tests use."""

    def __init__(self, pid: int, pipes: dict[str, Pipe]) -> None:
        self.pid, self._pipes = pid, pipes
        self.returncode: int | None = None
        self.stdout, self.stderr = (pipes[name].reader if name in pipes else None for name in ("stdout", "stderr"))
        self._ended = asyncio.ensure_future(self._end())

    async def _end(self) -> int:
        self.returncode = int(await self._pipes["status"].reader.readline())
        for pipe in self._pipes.values():
            pipe.end()
        return self.returncode

    async def wait(self) -> int:
        """Its exit status, or the negative number of the signal that ended it."""
        return await asyncio.shield(self._ended)

    async def communicate(self) -> tuple[bytes, bytes]:
        """All it says, once it has ended."""
        out, err = await asyncio.gather(*(_all_of(pipe) for pipe in (self.stdout, self.stderr)))
        await self.wait()
        return out, err

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):  # its end is not told yet
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def python(
    *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None,
    stdout: int | IO[bytes] | None = None, stderr: int | IO[bytes] | None = None,
) -> Process:  # fmt: skip
    """`python ARGUMENTS…`, which name a module (`-m`) or a file; without standard input."""
    pipes: dict[str, Pipe] = {}
    ours: list[int] = []

    async def end_of(name: str, wanted: int | IO[bytes] | None, inherited: int) -> int:
        if wanted is None:
            return inherited
        if not isinstance(wanted, int):
            return wanted.fileno()
        if wanted == STDOUT:
            return said
        reading, writing = os.pipe()
        ours.append(writing)
        pipes[name] = Pipe(reading)
        await pipes[name].open()
        return writing

    said = await end_of("stdout", stdout, 1)
    complained = await end_of("stderr", stderr, 2)
    status = await end_of("status", PIPE, -1)
    request = {
        "argv": [str(each) for each in arguments], "env": dict(os.environ if env is None else env),
        "cwd": str(cwd or Path.cwd()),
    }  # fmt: skip
    try:
        socket.send_fds(_parent(), [json.dumps(request).encode()], [said, complained, status])
    finally:
        for number in ours:
            os.close(number)
    async with asyncio.timeout(PATIENCE_S):
        first = await pipes["status"].reader.readline()
    return Process(int(first), pipes)


async def _all_of(pipe: asyncio.StreamReader | None) -> bytes:
    return b"" if pipe is None else await pipe.read()


@cache
def _parent() -> socket.socket:
    """The way to this worker's parent of forked processes; it ends when the worker does, with all its children."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, "-m", "tests.forked", str(its.fileno())]
        parent = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[its.fileno()])

    def end() -> None:
        ours.close()
        parent.wait(PATIENCE_S)

    atexit.register(end)
    return ours


def serve(way: socket.socket) -> dict[str, Any] | None:
    """Fork for every request and tell how each child ends. Returns in a child what it is to do, in the parent None."""
    children: dict[int, tuple[int, int]] = {}  # by pidfd: process id, where its end is told
    watched = selectors.DefaultSelector()
    watched.register(way, selectors.EVENT_READ)
    while True:
        for key, _ in watched.select():
            if key.fileobj is not way:
                _tell_end(watched, children, key.fd)
                continue
            data, descriptors, _, _ = socket.recv_fds(way, MOST, 3)
            if not data:
                for pid, _ in children.values():
                    os.kill(pid, signal.SIGKILL)
                return None
            said, complained, status = descriptors
            if (pid := os.fork()) == 0:
                watched.close()
                way.close()
                os.dup2(said, 1)
                os.dup2(complained, 2)
                for number in (*descriptors, *children, *(told for _, told in children.values())):
                    os.close(number)
                request: dict[str, Any] = json.loads(data)
                return request
            os.write(status, b"%d\n" % pid)
            os.close(said)
            os.close(complained)
            ended = os.pidfd_open(pid)
            children[ended] = pid, status
            watched.register(ended, selectors.EVENT_READ)


def _tell_end(watched: selectors.BaseSelector, children: dict[int, tuple[int, int]], ended: int) -> None:
    pid, status = children.pop(ended)
    watched.unregister(ended)
    os.close(ended)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):  # nobody waits for it any more
        os.write(status, b"%d\n" % code)
    os.close(status)


def run(request: dict[str, Any]) -> None:
    """Be what was asked for."""
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - what stood there is another file
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    first, *rest = request["argv"]
    if first == "-m":
        sys.argv = ["-m", *rest[1:]]
        sys.path[0] = request["cwd"]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    for name in ("supervisors.boot.serving", "supervisors.demo"):
        import_module(name)
    gc.collect()
    gc.freeze()
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is not None:
        run(asked)
