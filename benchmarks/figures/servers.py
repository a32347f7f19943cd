"""Servers and processes of one run: started here, ended here, whatever happens."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from adapters.embedded.postgres import EmbeddedPostgres

WORD_S = 300.0
AS_SHIPPED: Mapping[str, str] = MappingProxyType({})


@asynccontextmanager
async def folder() -> AsyncIterator[Path]:
    """A directory for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="amends-bench-") as name:
        os.chmod(name, 0o755)  # noqa: PTH101, S103 - the server of a root user runs under another account
        yield Path(name)


@asynccontextmanager
async def postgres(state: Path, settings: Mapping[str, str] = AS_SHIPPED) -> AsyncIterator[EmbeddedPostgres]:
    """An embedded Postgres, as a runtime without a configuration has it."""
    server = EmbeddedPostgres(state, settings=settings)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Child:
    """A process of ours that is asked in lines and answers in JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._say, self._hear = process, process.stdin, process.stdout

    async def heard(self) -> Any:
        """Its next line; raises `RuntimeError` where it has ended instead."""
        async with asyncio.timeout(WORD_S):
            line = await self._hear.readline()
        if not line:
            raise RuntimeError("the process has ended; what it said stands on standard error")
        return msgspec.json.decode(line)

    def tell(self, word: str) -> None:
        """Tell it something."""
        self._say.write(word.encode() + b"\n")

    async def ask(self, word: str) -> Any:
        """Tell it something, and hear what it says to that."""
        self.tell(word)
        return await self.heard()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid


@asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[Child]:
    """`python -m module ARGUMENTS…`; it is told to end by the end of its input, and killed if it does not."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    made = Child(process)
    try:
        yield made
    finally:
        made._say.close()  # noqa: SLF001 - its own module's
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def words() -> AsyncIterator[str]:
    """In such a process: what it is told, until its input ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().strip()


def answer(found: Any) -> None:
    """In such a process: say something."""
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    sys.stdout.flush()
