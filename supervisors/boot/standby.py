"""A runtime that waits for the lease: it answers how it is, and serves nothing else."""

import asyncio
import logging
from contextlib import suppress

from adapters.http.server import HttpServer, InUse

log = logging.getLogger("amends.boot")
AGAIN_S = 1.0


class Waiting:
    """`/healthz` and `/readyz` of a standby, where the first runtime of the same host does not have the address."""

    def __init__(self, listen: str) -> None:
        self._http = HttpServer(
            listen, checks=lambda: {"standby": "another runtime holds the lease; waiting"}, metrics=list,
            authorise=lambda token: None,
        )  # fmt: skip
        self._binding: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen, or try until the address is free; raises `BadConfiguration` where there can be none."""
        try:
            await self._http.start()
        except InUse as error:
            log.warning("%s; until it is free this standby has no health of its own", error)
            self._binding = asyncio.create_task(listen_late(self._http), name="standby.listen")

    async def stop(self) -> None:
        """Let the address go."""
        if self._binding is not None:
            self._binding.cancel()
            await asyncio.wait({self._binding})
        await self._http.stop()


async def listen_late(http: HttpServer) -> None:
    """Until the address is free and listened on."""
    while not http.url:
        await asyncio.sleep(AGAIN_S)
        with suppress(InUse):
            await http.start()
