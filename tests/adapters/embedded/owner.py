"""A program for the tests: starts an embedded server, says its pid, and lives until it is killed."""

import asyncio
import sys
from pathlib import Path

from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.postgres import EmbeddedPostgres


async def main(kind: str, state_dir: Path, life: str) -> None:
    """Run `kind` on `state_dir`; `life` is `stay` (until killed) or `leave` (stop at once)."""
    server = EmbeddedPostgres(state_dir) if kind == "postgres" else EmbeddedNats(state_dir)
    await server.start()
    address = server.dsn if isinstance(server, EmbeddedPostgres) else server.url
    sys.stdout.write(f"{server.pid} {address}\n")
    sys.stdout.flush()
    if life == "stay":
        await asyncio.sleep(3600)
    await server.stop()


asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
