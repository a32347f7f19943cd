"""`python -m benchmarks.takeover [--times 20]`: how soon a standby serves after a kill or a pause of the first.

Real processes on one Postgres and one NATS. After a pause the first wakes: it must end by itself, and nothing of its
epoch may have been written since. Prints one JSON object with the seconds until `ready`.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from tests.acceptance.pair import Pair, line
from tests.forked import Process


async def _standby(pair: Pair, name: str) -> Process:
    process = await pair.run(name)
    assert (await line(process)).startswith("standby")
    return process


async def measure(times: int) -> dict[str, Any]:
    """So many kills, then as many pauses."""
    base = Path(tempfile.mkdtemp(prefix="amends-takeover-"))
    os.chmod(base, 0o755)  # noqa: PTH101, S103 - the server of a root user runs under another account
    pair = Pair(base)
    await pair.start()
    try:
        serving = await pair.run("first")
        assert await line(serving) == "ready"
        kills: list[float] = []
        for number in range(times):
            standby = await _standby(pair, f"k{number}")
            began = time.monotonic()
            serving.kill()
            assert await line(standby) == "ready"
            kills.append(time.monotonic() - began)
            assert (await pair.create_account(f"kill-{number}"))["ok"]
            await serving.wait()
            serving = standby
        pauses: list[float] = []
        for number in range(times):
            standby = await _standby(pair, f"p{number}")
            began = time.monotonic()
            os.kill(serving.pid, signal.SIGSTOP)
            assert await line(standby) == "ready"
            pauses.append(time.monotonic() - began)
            (head,) = await pair.fetch("SELECT seq, epoch FROM journal_head")
            os.kill(serving.pid, signal.SIGCONT)
            assert await serving.wait() == 1, "it has found itself fenced"
            assert (await pair.create_account(f"pause-{number}"))["ok"]
            rows = await pair.fetch(f"SELECT DISTINCT epoch FROM audit_log WHERE jseq > {int(head['seq'])}")  # noqa: S608 - a number
            assert {row["epoch"] for row in rows} <= {head["epoch"]}, "the one that woke has written"
            serving = standby
        assert await pair.fetch("SELECT * FROM public_v1.invariant_violation") == []
        return {"times": times, **_figures("kill", kills), **_figures("pause", pauses)}
    finally:
        await pair.stop()
        shutil.rmtree(base, ignore_errors=True)


def _figures(what: str, seconds: list[float]) -> dict[str, float]:
    return {f"{what}_median_s": round(statistics.median(seconds), 2), f"{what}_worst_s": round(max(seconds), 2)}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.takeover")
    parser.add_argument("--times", type=int, default=20, help="kills, and as many pauses")
    print(json.dumps(uvloop.run(measure(parser.parse_args().times))))


if __name__ == "__main__":
    main()
