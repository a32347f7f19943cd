"""What answers over HTTP and reads the database for questions: opened, closed, and told of in `endpoints.json`."""

import asyncio
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from adapters.http.server import HttpServer, InUse
from adapters.postgres.reading import ReadSide
from amends.domain.domain import Domain, ends_of
from amends.runtime.trunk import ChildSpec
from supervisors.boot.files import write_private
from supervisors.boot.servers import Servers
from supervisors.boot.standby import listen_late

log = logging.getLogger("amends.boot")
QUESTION_S = 5.0  # for one question in the database, and for its turn there


class Reads:
    """Read sides of one database: for pages, spans and proofs, for callers, and for operators."""

    def __init__(self, dsn: str, role: str, domains: Sequence[Domain]) -> None:
        ends = ends_of(domains)
        self.pages = ReadSide(dsn, role=role, ends=ends)
        self.callers = ReadSide(dsn, timeout_s=QUESTION_S, role=role, ends=ends)
        self.operators = ReadSide(dsn, timeout_s=QUESTION_S, role=role, ends=ends)

    async def aclose(self) -> None:
        """Close them."""
        for side in (self.pages, self.callers, self.operators):
            await side.aclose()


class EndpointsFile:
    """`endpoints.json`, mode 0600, written whole or not at all: it says where everything is."""

    def __init__(self, servers: Servers, state_dir: Path, operator_token: str, ssh_public_key: str) -> None:
        self._servers, self._state_dir = servers, state_dir
        self._token, self._key = operator_token, ssh_public_key

    async def write(self, http_url: str) -> None:
        """Write it."""
        body = {
            "postgres_dsn": await self._servers.reader_dsn(self._state_dir / "reader.password"),
            "nats_url": self._servers.local_nats_url,
            "http_url": http_url,
            "operator_token": self._token,
            "ssh_public_key": self._key,
            "pid": os.getpid(),
        }
        write_private(self._state_dir / "endpoints.json", json.dumps(body, indent=1))


class Front:
    """The HTTP server. After a take-over the replaced runtime may still have its address: then it listens late."""

    def __init__(self, http: HttpServer, reads: Reads, file: EndpointsFile, *, took_over: bool) -> None:
        self._http, self._reads, self._file, self._took_over = http, reads, file, took_over

    async def start(self) -> None:
        """Listen, or leave it to the service to do so later; raises `BadConfiguration`."""
        try:
            await self._http.start()
        except InUse as error:
            if not self._took_over:
                raise
            log.warning("%s; it is tried again until it is free", error)

    async def stop(self) -> None:
        """Close it, and what it reads from."""
        await self._http.stop()
        await self._reads.aclose()

    async def tell(self) -> None:
        """Say where everything is."""
        await self._file.write(self._http.url)

    def child(self) -> ChildSpec:
        """Its service."""
        return ChildSpec(name="http", run=self._listen, detail=lambda: {"url": self._http.url})

    async def _listen(self) -> None:
        """The server listens by itself; a late one is still to be told to those who look for it."""
        if not self._http.url:
            await listen_late(self._http)
            await self.tell()
        await asyncio.Event().wait()
