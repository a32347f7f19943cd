"""`python -m benchmarks.siege`: what 4 096 slow questions of one tenant do to another caller's commands.

A real runtime process; the ledger is locked by a foreign session, so that the questions are slow. The tenant and the
other caller are processes of their own and begin in the same moment, so the first burst is measured. The tenant writes
its questions to the broker in one piece, made before: the cores are the product's. Each of three rounds is one run with
nobody else there and one under the flood; of each figure the median of the rounds. Prints one JSON object.
"""

import asyncio
import hashlib
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats
import uvloop

from tests.acceptance.world import World

COMMANDS, QUESTIONS, ROUNDS = 500, 4096, 3
REPLY_S = 120.0
TOKENS = {"front": "front-token", "tenant": "tenant-token"}
Figures = dict[str, float]


def _caller(name: str, accounts: str) -> str:
    digest = hashlib.sha256(TOKENS[name].encode()).hexdigest()
    return f'{name} = {{ token_sha256 = "{digest}", accounts = ["{accounts}"], commands_per_s = 100000 }}\n'


CONFIG = "[callers]\n" + _caller("front", "*") + _caller("tenant", "acme")


# --- the processes of the two callers ----------------------------------------------------------------


async def commands(url: str) -> list[float]:
    """How long each of so many commands took, one after the other, in milliseconds."""
    client = await nats.connect(url)
    took, run = [], secrets.token_hex(4)
    await _word()
    for number in range(COMMANDS):
        began = time.perf_counter()
        head = {"Authorization": f"Bearer {TOKENS['front']}", "Idempotency-Key": f"{run}-{number}"}
        data = json.dumps({"account_id": f"a-{run}-{number}", "currency": "usd"}).encode()
        reply = await client.request("amends.v1.cmd.account.create", data, timeout=REPLY_S, headers=head)
        took.append((time.perf_counter() - began) * 1000)
        assert json.loads(reply.data)["ok"], reply.data
    await client.close()
    return took


async def questions(url: str) -> Counter[str]:
    """So many questions at once; how many ended how."""
    found = urlsplit(url)
    reader, writer = await asyncio.open_connection(found.hostname, found.port, limit=1 << 24)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\nSUB _INBOX.siege.* 1\r\nPING\r\n')
    await reader.readuntil(b"PONG\r\n")
    head = f"NATS/1.0\r\nAuthorization: Bearer {TOKENS['tenant']}\r\n\r\n"
    body = f'{head}{{"account_id":"acme"}}'
    sizes = f"{len(head)} {len(body)}"
    burst = "".join(
        f"HPUB amends.v1.qry.ledger_entry.list _INBOX.siege.{number} {sizes}\r\n{body}\r\n"
        for number in range(QUESTIONS)
    ).encode()
    await _word()
    writer.write(burst)
    ended: Counter[str] = Counter()
    async with asyncio.timeout(REPLY_S):
        while ended.total() < QUESTIONS:
            line = await reader.readline()
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
            elif line.startswith((b"MSG ", b"HMSG ")):
                whole = await reader.readexactly(int(line.split()[-1]) + 2)
                reply = json.loads(whole[whole.rfind(b"\r\n\r\n", 0, -2) + 4 if line[:1] == b"H" else 0 :])
                ended["ok" if reply["ok"] else str(reply["error"]["code"])] += 1
    writer.close()
    return ended


async def _word() -> None:
    """Say that we are ready, and wait for the word."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


ROLES: dict[str, Callable[[str], Awaitable[Any]]] = {"commands": commands, "questions": questions}


async def act(role: str, url: str) -> None:
    """One of the callers: prints what came of it."""
    print(json.dumps(await ROLES[role](url)), flush=True)


# --- the siege ---------------------------------------------------------------------------------------


class Caller:
    """A process that has connected and waits for its word."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._say, self._hear = process, process.stdin, process.stdout

    @classmethod
    async def start(cls, role: str, url: str) -> "Caller":
        """Started and connected."""
        made = cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.siege", role, url,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20,
            )
        )  # fmt: skip
        await made.heard()
        return made

    def begin(self) -> None:
        """Give the word."""
        self._say.write(b"\n")

    async def heard(self) -> bytes:
        """The next line."""
        return await self._hear.readline()

    async def result(self) -> Any:
        """What came of it, once the process has ended."""
        found = json.loads(await self.heard())
        await self._process.wait()
        return found


async def alone(world: World) -> Figures:
    """The commands of a caller with nobody else there."""
    front = await Caller.start("commands", world.endpoints["nats_url"])
    front.begin()
    return _figures(await front.result())


async def besieged(world: World) -> tuple[Figures, dict[str, int]]:
    """The same, and at the same moment the questions of a tenant; also how these ended."""
    front, tenant = [await Caller.start(role, world.endpoints["nats_url"]) for role in ("commands", "questions")]
    holder = await world.superuser()
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("LOCK TABLE ledger_entries IN ACCESS EXCLUSIVE MODE")
    tenant.begin()
    front.begin()
    took = await front.result()
    await transaction.rollback()
    await holder.close()
    return _figures(took), await tenant.result()


async def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="amends-siege-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - the server of a root user runs under another account
        known = World(Path(folder) / "state", CONFIG)
        known.caller_token = TOKENS["front"]
        async with known.running() as world:
            await world.account("acme")
            await alone(world)
            rounds = [(await alone(world), *await besieged(world)) for _ in range(ROUNDS)]
    report = {
        "alone": _medians([quiet for quiet, _, _ in rounds]),
        "under_siege": _medians([siege for _, siege, _ in rounds]),
        "p99_times": [round(siege["p99_ms"] / quiet["p99_ms"], 2) for quiet, siege, _ in rounds],
        "questions": rounds[-1][2],
    }
    print(json.dumps(report))
    return 0


def _figures(took: list[float]) -> Figures:
    quantiles = statistics.quantiles(took, n=100)
    return {"median_ms": quantiles[49], "p99_ms": quantiles[98], "worst_ms": max(took)}


def _medians(runs: list[Figures]) -> Figures:
    return {name: round(statistics.median(each[name] for each in runs), 2) for name in runs[0]}


if __name__ == "__main__":
    sys.exit(uvloop.run(act(*sys.argv[1:]) if sys.argv[1:] else main()))
