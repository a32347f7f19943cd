"""`python -m benchmarks.cascade [--nodes 5000] [--times 1]`: a whole site is lost at once, and an operator confirms it.

The rental runtime on a real Postgres with fsync on; machines, agents and broker answer at once and in this process, so
that what is measured is ours. Half of the fleet, all rented, falls silent; the guards hold it; it is confirmed; each
rental is compensated. Then the site comes back. Prints one JSON object: seconds from the confirmation to the last
compensated rental, turns, the longest time the loop stood still, memory before and after.
"""

import argparse
import asyncio
import json
import os
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from adapters.embedded.postgres import EmbeddedPostgres
from amends.values.limits import LimitValue
from benchmarks.fleet import KEY, Fleet, enlist, until
from supervisors.boot.collector import spare_collector

OFFLINE_MS = 10_000
LIMITS: Mapping[str, LimitValue] = {
    "suspect_after_ms": 5000, "offline_after_ms": OFFLINE_MS, "allocation_deadline_ms": 600_000,
}  # fmt: skip


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20


async def _rent(fleet: Fleet, count: int) -> None:
    """All machines of the first site."""
    for start in range(0, count, 100):
        await asyncio.gather(*(
            fleet.ask("cmd.allocation.request", account_id="acme", ssh_public_key=KEY, node_labels={"site": "a"},
                      rate_uminor_per_hour=10**12)
            for _ in range(start, min(start + 100, count))
        ))  # fmt: skip
    await until(lambda: fleet.count_of("allocation", "active") == count)


async def _cascade(fleet: Fleet, site: list[str]) -> dict[str, Any]:
    """The site is lost, confirmed, compensated, and comes back."""
    memory, engine, count = _rss(), fleet.core.kernel.engine, len(site)
    for name in site:
        fleet.machines.machines[name].up = False
    await until(lambda: len(fleet.core.pool.held_nodes("a", None)) == count)
    await asyncio.sleep(OFFLINE_MS / 1000)
    held = fleet.count_of("node", "suspect")
    turns, fleet.stall_s, began = engine.turns, 0.0, time.perf_counter()
    await fleet.ask("ops.detector.confirm", domain="a", reason="the hall has no power")
    await until(lambda: fleet.count_of("allocation", "active") == 0)
    took, stall_s = time.perf_counter() - began, fleet.stall_s
    await until(lambda: engine.writer.idle)
    result = {
        "held_before": held, "confirmed_to_compensated_s": round(took, 2),
        "compensations_per_s": round(count / took), "turns": engine.turns - turns,
        "loop_stall_ms": round(stall_s * 1000), "rss_before_mib": memory, "rss_after_mib": _rss(),
        "lost": fleet.count_of("node", "offline"),
    }  # fmt: skip
    fleet.stall_s, began = 0.0, time.perf_counter()
    for name in site:
        fleet.machines.machines[name].up = True
    await until(lambda: fleet.count_of("node", "ready") == 2 * count)
    return result | {
        "back_in_service_s": round(time.perf_counter() - began, 2),
        "return_loop_stall_ms": round(fleet.stall_s * 1000), "rss_end_mib": _rss(),
    }  # fmt: skip


async def measure(count: int, times: int) -> list[dict[str, Any]]:
    """So many cascades, one after the other, in one process."""
    with tempfile.TemporaryDirectory(prefix="amends-bench-") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - the server of a root user runs under another account
        postgres = EmbeddedPostgres(Path(folder))
        await postgres.start()
        try:
            names, found = [f"{site}-{number}" for site in ("a", "b") for number in range(count)], []
            async with Fleet(postgres.dsn, LIMITS).running() as fleet:
                await enlist(fleet, names)
                for number in range(times):
                    await _rent(fleet, count)
                    if not number:
                        spare_collector()
                    found.append(await _cascade(fleet, names[:count]))
                    fleet.forget()
            return found
        finally:
            await postgres.stop()


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cascade")
    parser.add_argument("--nodes", type=int, default=5000, help="machines of the site that is lost; as many live on")
    parser.add_argument("--times", type=int, default=1, help="cascades in one process, to see whether memory grows")
    options = parser.parse_args()
    print(json.dumps({"nodes": options.nodes, "cascades": uvloop.run(measure(options.nodes, options.times))}))


if __name__ == "__main__":
    main()
