"""Run the benchmarks: durable turns, three-step lives, bytes per idle actor, start-up. One JSON object a line."""

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from adapters.embedded.postgres import EmbeddedPostgres
from amends.kernel import Kernel
from amends.turn.messages import Envelope
from amends.values import ids
from benchmarks.lives import Touch
from benchmarks.requests import kept_replies, matching
from benchmarks.running import closed_loop, kernel, lives, turns
from benchmarks.stampede import all_due, stampede


async def idle_actors(it: Kernel, count: int) -> None:
    """Make `count` idle actors."""

    def start(number: int, ended: Callable[[], None]) -> None:
        name = ids.type_id("evt", time.time_ns() // 1000, os.urandom(10))
        it.engine.tell("life", name, Envelope(Touch(), priority=True, fresh=True, done=lambda ok: ended()))

    await closed_loop(it, count, 512, start)


def rss_bytes() -> int:
    """Resident memory of this process."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def measure(report: Callable[[str, list[float], str], None], scale: float) -> None:
    """All benchmarks, `scale` times their size."""
    for name, values in zip(
        ("match_request", "match_node"), zip(*(matching(1000) for _ in range(3)), strict=True), strict=True
    ):
        report(f"{name}_100000", list(values), "us")
    looked_up = [await kept_replies(int(50_000 * scale)) for _ in range(3)]
    report("kept_replies_1ms_away", looked_up, "/s, a Postgres a millisecond away")
    with tempfile.TemporaryDirectory(prefix="amends-bench-") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - the server of a root user runs under another account
        postgres = EmbeddedPostgres(Path(folder))
        await postgres.start()
        try:
            async with kernel(postgres.dsn) as it:
                await _throughput(it, report, scale)
                await idle_actors(it, int(100_000 * scale))
            gc.collect()
            before, began = rss_bytes(), time.perf_counter()
            async with kernel(postgres.dsn) as it:
                took = time.perf_counter() - began
                gc.collect()
                report("startup", [took], f"s at {it.loaded} actors")
                report("idle_actor", [(rss_bytes() - before) / it.loaded], "B")
                await idle_actors(it, int(100_000 * scale))
            due = await all_due(postgres.dsn, int(200_000 * scale))
            async with kernel(postgres.dsn) as it:
                took, watch = await stampede(it, postgres.dsn)
                report("due_at_once", [due / took], f"/s, {due} timers")
                report("due_at_once_stall", [watch.stall_s * 1000], "ms")
                report("due_at_once_lease_age", [watch.lease_age_s * 1000], "ms; at 5000 nothing may begin")
                report("due_at_once_take_overs", [float(watch.taken)], "")
        finally:
            await postgres.stop()


async def _throughput(it: Kernel, report: Callable[[str, list[float], str], None], scale: float) -> None:
    cases: list[tuple[str, Callable[[int, int], Awaitable[tuple[float, float]]], int, int]] = [
        ("turns_512", lambda n, c: turns(it, n, c), 20_000, 512),
        ("turns_1", lambda n, c: turns(it, n, c), 300, 1),
        ("lives_512", lambda n, c: lives(it, n, c, doomed=False), 5_000, 512),
        ("lives_1", lambda n, c: lives(it, n, c, doomed=False), 100, 1),
        ("compensated_512", lambda n, c: lives(it, n, c, doomed=True), 3_000, 512),
        ("compensated_1", lambda n, c: lives(it, n, c, doomed=True), 100, 1),
    ]
    for name, run, total, in_flight in cases:
        results = [await run(max(in_flight, int(total * scale)), in_flight) for _ in range(3)]
        report(name, [rate for rate, _ in results], "/s")
        report(f"{name}_latency", [latency for _, latency in results], "ms")


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="./run bench")
    parser.add_argument("--json", type=Path, help="also append the lines to this file")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual size")
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    facts = {
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }

    def report(name: str, values: list[float], unit: str) -> None:
        rounded = [round(value, 3) for value in values]
        row = {
            "name": name, "value": statistics.median(rounded), "unit": unit, "runs": len(rounded),
            "min": min(rounded), "max": max(rounded), **facts,
        }  # fmt: skip
        print(json.dumps(row), flush=True)
        if options.json is not None:
            with options.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    uvloop.run(measure(report, options.scale))
    return 0


sys.exit(main())
