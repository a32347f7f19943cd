"""`python -m benchmarks.fleet_page [--nodes 10000]`: the console's page of a large fleet, and who waits for it.

The runtime on a real Postgres with its machines in this process, beating; the console's server over it. The page is
asked for five times while somebody else asks the same server for its health every 5 ms. Prints one JSON object: seconds
for the page (median), its bytes, the nodes on it, and how late the slowest other answer was, with and without the page:
the machines' own heartbeats are of this process.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import aiohttp
import uvloop

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.http.console.ports import Desk, Operator
from adapters.http.console.routes import Console
from adapters.http.server import HttpServer
from adapters.postgres.reading import ReadSide
from benchmarks.fleet import Fleet, enlist
from supervisors.boot.collector import spare_collector

TIMES, PAUSE_S, BEFORE_S = 5, 0.005, 4.0


class Reception:
    """What that page needs of the desk."""

    def __init__(self, fleet: Fleet) -> None:
        self._read, self._engine = ReadSide(fleet.dsn), fleet.core.kernel.engine

    def log_in(self, token: str) -> Operator:
        """Whoever it is."""
        return Operator("bench", "viewer")

    def runtime(self, token: str) -> "Reception":
        """The same for all."""
        return self

    async def ask(self, subject: str, data: dict[str, Any]) -> dict[str, Any]:
        """Nothing else is shown."""
        return {"items": []}

    async def fleet(self) -> Sequence[Mapping[str, Any]]:
        """Read as a runtime reads it."""
        return await self._read.rows("fleet")

    @property
    def changes(self) -> int:
        """Turns."""
        return self._engine.turns

    async def aclose(self) -> None:
        """The end."""
        await self._read.aclose()


async def _others(session: aiohttp.ClientSession, url: str, late: list[float]) -> None:
    while True:
        began = time.perf_counter()
        async with session.get(f"{url}/healthz") as answer:
            await answer.read()
        late.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE_S)


async def _looked_at(fleet: Fleet) -> dict[str, Any]:
    desk = Reception(fleet)
    server = HttpServer("127.0.0.1:0", checks=dict, metrics=list, authorise=lambda token: None,
                        routes=Console(cast("Desk", desk)).routes())  # fmt: skip
    await server.start()
    took, sizes, late, text = list[float](), list[int](), list[float](), ""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.post(f"{server.url}/login", data={"token": "any", "next": "/matrix"}, allow_redirects=False):
            pass
        others = asyncio.create_task(_others(session, server.url, late))
        await asyncio.sleep(BEFORE_S)
        usual_s = max(late)
        late.clear()
        for _ in range(TIMES):
            began = time.perf_counter()
            async with session.get(f"{server.url}/fleet") as answer:
                text = await answer.text()
            took.append(time.perf_counter() - began)
            sizes.append(len(text.encode()))
            await asyncio.sleep(0.5)
        others.cancel()
        await asyncio.wait([others])
    await server.stop()
    await desk.aclose()
    return {
        "page_s": round(statistics.median(took), 3), "bytes": sizes[-1], "nodes_on_it": text.count('href="/nodes/'),
        "other_answers": len(late), "latest_other_ms": round(max(late) * 1000),
        "latest_without_ms": round(usual_s * 1000),
    }  # fmt: skip


async def measure(count: int) -> dict[str, Any]:
    """A fleet of so many."""
    with tempfile.TemporaryDirectory(prefix="amends-bench-") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - the server of a root user runs under another account
        postgres = EmbeddedPostgres(Path(folder))
        await postgres.start()
        try:
            names = [f"{site}-{number}" for site in ("a", "b", "c", "d") for number in range(count // 4)]
            async with Fleet(postgres.dsn, {}).running() as fleet:
                await enlist(fleet, names)
                spare_collector()
                return {"nodes": len(names), **await _looked_at(fleet)}
        finally:
            await postgres.stop()


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet_page")
    parser.add_argument("--nodes", type=int, default=10_000)
    print(json.dumps(uvloop.run(measure(parser.parse_args().nodes))))


if __name__ == "__main__":
    main()
