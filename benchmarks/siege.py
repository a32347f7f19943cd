"""`python -m benchmarks.siege`: what 4 096 slow questions of one tenant do to another caller's commands.

A real runtime process; the ledger is locked by a foreign session, so that the questions are slow. Medians and p99 of
both are of one run, one after the other: with nobody else there, then under the flood. Prints one JSON object.
"""

import asyncio
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.acceptance.world import World

COMMANDS, QUESTIONS = 500, 4096
TOKENS = {"front": "front-token", "tenant": "tenant-token"}


def _caller(name: str, accounts: str) -> str:
    digest = hashlib.sha256(TOKENS[name].encode()).hexdigest()
    return f'{name} = {{ token_sha256 = "{digest}", accounts = ["{accounts}"], commands_per_s = 100000 }}\n'


CONFIG = "[callers]\n" + _caller("front", "*") + _caller("tenant", "acme")


def bearer(name: str) -> dict[str, str]:
    """The header of that caller."""
    return {"Authorization": f"Bearer {TOKENS[name]}"}


async def commands(world: World) -> list[float]:
    """How long each of so many commands took, one after the other, in milliseconds."""
    took = []
    for _ in range(COMMANDS):
        began = time.perf_counter()
        body = {"account_id": world.new_name("acct"), "currency": "usd"}
        await world.ok("cmd.account.create", body, headers=bearer("front"))
        took.append((time.perf_counter() - began) * 1000)
    return took


async def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="amends-siege-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - the server of a root user runs under another account
        known = World(Path(folder) / "state", CONFIG)
        known.caller_token = TOKENS["front"]
        async with known.running() as world:
            await world.account("acme")
            await commands(world)
            alone = await commands(world)
            under = await _under_siege(world)
    print(json.dumps({name: _figures(found) for name, found in (("alone", alone), ("under_siege", under))}))
    return 0


async def _under_siege(world: World) -> list[float]:
    holder = await world.superuser()
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("LOCK TABLE ledger_entries IN ACCESS EXCLUSIVE MODE")

    async def ask() -> None:
        await world.ask("qry.ledger_entry.list", {"account_id": "acme"}, headers=bearer("tenant"), timeout_s=60)

    flood = [asyncio.create_task(ask()) for _ in range(QUESTIONS)]
    await asyncio.sleep(1)  # those beyond the tenant's places are refused by now, the others wait
    took = await commands(world)
    await transaction.rollback()
    await holder.close()
    await asyncio.gather(*flood)
    return took


def _figures(took: list[float]) -> dict[str, float]:
    quantiles = statistics.quantiles(took, n=100)
    return {"median_ms": round(quantiles[49], 2), "p99_ms": round(quantiles[98], 2)}


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
