"""Restate: its server with its default durable log, the service of `restate_lives.py` beside it, and callers.

The callers are ours and cheap: one kept connection for each life in flight, and a request written by hand.
"""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from benchmarks.peers.environment import HERE
from benchmarks.peers.measuring import Run
from benchmarks.peers.programs import Broken, Program, program

WITHIN_S = 60.0
HOST = "127.0.0.1"
# One process: with two cores a second one takes from the server what it gives to the service.
GRANIAN = (
    "--interface", "asginl", "--http", "2", "--no-ws", "--loop", "uvloop", "--workers", "1", "--log-level", "warning",
    "--workers-kill-timeout", "1", "--host", HOST,
)  # fmt: skip
# Beside where it listens and what it says everything is as Restate ships it, fsync of its log too. When it starts it
# asks whether there is a newer release; that cannot be turned off, and where nothing answers it goes on.
SETTINGS = {
    "RESTATE_BIND_IP": HOST,
    "RESTATE_DISABLE_TELEMETRY": "true",
    "RESTATE_LISTEN_MODE": "tcp",
    "RESTATE_LOG_FILTER": "warn",
}


class Connection:
    """A kept connection to Restate's ingress, with one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def life(self, *, doomed: bool) -> None:
        """One life. Raises Broken when it does not end as it should."""
        body, expected = (b"true", "undone") if doomed else (b"false", "done")
        head = f"POST /lives/life HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
        self._writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        status, *fields = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
        (length,) = (int(field.partition(":")[2]) for field in fields if field.startswith("content-length:"))
        reply = await self._reader.readexactly(length)
        if " 200 " not in f"{status} " or json.loads(reply) != expected:
            raise Broken(f"a life of Restate ended as {status}, {reply[:200]!r}; it was to be {expected}")

    async def close(self) -> None:
        """Close it."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


class Restate:
    """Callers of a server that runs."""

    name = "restate"
    lives = 3072

    def __init__(self, port: int) -> None:
        self._port = port

    async def run(self, lives: int, in_flight: int, *, doomed: bool) -> Run:
        """See `measuring.Peer`."""
        left, latencies, connections = iter(range(lives)), list[float](), list[Connection]()

        async def keep_one_going(connection: Connection) -> None:
            while next(left, None) is not None:
                began = time.perf_counter()
                await connection.life(doomed=doomed)
                latencies.append((time.perf_counter() - began) * 1000)

        try:
            while len(connections) < in_flight:
                connections.append(Connection(*await asyncio.open_connection(HOST, self._port)))
            began = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for connection in connections:
                    group.create_task(keep_one_going(connection))
            return Run(time.perf_counter() - began, latencies)
        except (OSError, ExceptionGroup) as error:
            first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            raise Broken(f"a caller of Restate failed: {first!r}") from error
        finally:
            for connection in connections:
                await connection.close()


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on at this moment."""
    held = [socket.create_server((HOST, 0)) for _ in range(count)]
    try:
        return [int(each.getsockname()[1]) for each in held]
    finally:
        for each in held:
            each.close()


@asynccontextmanager
async def restate(python: Path, server: Path, folder: Path) -> AsyncIterator[Restate]:
    """Restate, running, with the service known to it; all is ended with the context. `folder` is empty."""
    ingress, admin, node, service = free_ports(4)
    places = {
        "RESTATE_ADMIN__BIND_ADDRESS": f"{HOST}:{admin}",
        "RESTATE_BIND_PORT": str(node),
        "RESTATE_INGRESS__BIND_ADDRESS": f"{HOST}:{ingress}",
    }
    serve = [str(python), "-m", "granian", *GRANIAN, "--port", str(service), "restate_lives:app"]
    start = [str(server), "--no-logo", "--base-dir", str(folder / "data")]
    log = folder / "restate-server.log"
    async with (
        program(serve, folder / "restate-service.log", cwd=HERE) as serving,
        program(start, log, cwd=folder, variables={**SETTINGS, **places}) as running,
    ):
        await _registered(admin, service, (serving, running))
        yield Restate(ingress)


async def _registered(admin: int, service: int, programs: tuple[Program, ...]) -> None:
    """Tell the server of the service, as soon as both answer. Raises Broken after a while, or when one has ended."""
    body = {"uri": f"http://{HOST}:{service}"}
    why = "nothing"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHIN_S):
                while all(each.alive() for each in programs):
                    try:
                        async with session.post(f"http://{HOST}:{admin}/deployments", json=body) as reply:
                            if reply.ok:
                                return
                            why = f"{reply.status} {await reply.text()}"
                    except aiohttp.ClientError as error:
                        why = str(error)
                    await asyncio.sleep(0.2)
    ended = [each for each in programs if not each.alive()] or programs
    raise ended[0].broken(f"does not serve; the last answer was {why}")
