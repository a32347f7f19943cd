"""Two runtimes on one Postgres and one NATS, as processes of their own."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import asyncpg
import nats
from nats.aio.client import Client

from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.postgres import EmbeddedPostgres
from tests.directories import with_database
from tests.forked import PIPE, Process, python
from tests.patience import PATIENCE_S


class Pair:
    """An external Postgres and NATS, and runtimes on them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.postgres, self.broker = EmbeddedPostgres(base / "servers"), EmbeddedNats(base / "servers")
        self.runtimes: list[Process] = []
        self.nats: Client

    async def start(self) -> None:
        await with_database(self.base / "servers")
        await self.postgres.start()
        await self.broker.start()
        self.nats = await nats.connect(self.broker.url)

    async def run(self, name: str, *more: str, dsn: str = "", http_port: int = 0, own_key: bool = False) -> Process:
        """A runtime with a state directory of its own and the first one's key to the nodes, unless it has its own."""
        state = self.base / name
        state.mkdir(exist_ok=True)
        first_key = self.base / "first" / "ssh_client_key"
        if name != "first" and first_key.exists() and not own_key:
            shutil.copy(first_key, state / "ssh_client_key")
        config = state / "amends.toml"
        config.write_text(
            f'profile = "acceptance"\ncallers = "open"\nstate_dir = "{state}"\n'
            f'[postgres]\ndsn = "{dsn or self.postgres.dsn}"\n'
            f'[nats]\nservers = ["{self.broker.url}"]\n[http]\nlisten = "127.0.0.1:{http_port}"\n'
        )
        with (state / "log").open("wb") as log:
            process = await python("-m", "supervisors.boot", "run", "--config", config, *more, stdout=PIPE, stderr=log)
        self.runtimes.append(process)
        return process

    async def create_account(self, name: str) -> dict[str, Any]:
        body = json.dumps({"account_id": name, "currency": "usd"}).encode()
        reply = await self.nats.request(
            "amends.v1.cmd.account.create", body, timeout=5, headers={"Idempotency-Key": name}
        )
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def fetch(self, query: str) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.postgres.superuser_dsn)
        try:
            return [dict(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    async def stop(self) -> None:
        for process in self.runtimes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await self.nats.close()
        await self.broker.stop()
        await self.postgres.stop()


async def line(process: Process, within_s: float = PATIENCE_S) -> str:
    """The next line that the runtime prints."""
    assert process.stdout is not None
    async with asyncio.timeout(within_s):
        return (await process.stdout.readline()).decode().strip()
