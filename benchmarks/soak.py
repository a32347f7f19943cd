"""`python -m benchmarks.soak [--minutes 3] [--nodes 200]`: a runtime under a light load, its servers and it killed.

The real program with its embedded Postgres and nats-server, and simulated machines in a process with real SSH servers
and agents. Three phases, the load through all of them:

1. Postgres is killed six times and nats-server six times (twice with its store gone); that is the warm-up too.
2. Once a second memory, file descriptors and tasks of the runtime are looked at. Flat is what grows by no more with
   each rental that has come and gone than `BORNE` says (of memory more, until caches are `FULL`); how sure that is
   the spread of the samples says (`flat.py`).
3. The runtime is killed ten times and started again: from the kill to the first step that the next one begins, and to
   the end of every step and message that the kill cut off.

At the end everybody leaves, nothing is left under way, and no invariant is violated.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from benchmarks.flat import Growth, growth, quantile
from benchmarks.soaking import REST_S, Soaked

PAGE: Final = Path(__file__).parents[1] / "docs" / "reliability.md"
BLOCK: Final = re.compile(r"(<!-- soak -->\n).*?(<!-- /soak -->)", re.DOTALL)
BORNE: Final = {"rss_kib": 2.0, "descriptors": 0.5, "tasks": 0.5}  # more with each rental
FULL: Final = 2_000  # rentals after which what is kept to be asked for again takes no more room: nine span ids of each
FILLING_KIB: Final = 12.0  # what is borne of memory until then
WORDS: Final = {"rss_kib": "resident memory, KiB", "descriptors": "file descriptors", "tasks": "tasks of the loop"}
KILLS, WIPES, RUNTIMES = 6, 2, 10
OUTAGES, STILL = 0.4, 0.35  # shares of the time
RATE: Final = 4.0  # rentals a second
UNDER_WAY: Final = """
    SELECT name AS what, entity FROM public_v1.step WHERE state = 'intended'
    UNION ALL SELECT 'event', entity FROM public_v1.outbox WHERE state <> 'published'
    UNION ALL SELECT 'notification', entity FROM public_v1.notification WHERE state <> 'sent'
    UNION ALL SELECT 'rental', allocation_id FROM public_v1.allocation WHERE state NOT IN ('released', 'failed')
    UNION ALL SELECT 'debt', target_ref FROM public_v1.debt
    UNION ALL SELECT 'run', entity FROM public_v1.recovery_run WHERE ended_us IS NULL"""
LEFT: Final = "SELECT step_id, name FROM public_v1.step WHERE state = 'intended' AND started_us <= $1"
FIRST: Final = "SELECT min(started_us) AS at_us FROM public_v1.step WHERE started_us > $1"


class Found:
    """What it came to."""

    def __init__(self) -> None:
        self.growths: list[Growth] = []
        self.first_s: list[float] = []
        self.all_s: list[float] = []
        self.violations: list[dict[str, Any]] = []
        self.rentals = self.failed = 0
        self.cpu_s = 0.0

    @property
    def broken(self) -> list[str]:
        """What is not as it must be."""
        grown = [f"{each.name} grows by {each.each:.3f} with each rental, give or take {each.off:.3f}; "
                 f"borne is {each.most}" for each in self.growths if not each.flat]  # fmt: skip
        vague = [f"{each.name} wavers too much to tell: {each.off:.3f}" for each in self.growths if not each.sharp]
        return [*grown, *vague, *(f"invariant: {row}" for row in self.violations)]


def say(text: str) -> None:
    """How far it is."""
    print(f"soak: {text}", file=sys.stderr, flush=True)


async def outages(it: Soaked, seconds: float) -> None:
    """The servers are killed in turn, evenly through the time."""
    for number in range(KILLS):
        for kill in (it.kill_postgres(), it.kill_nats(wiped=number < WIPES)):
            began = time.monotonic()
            await kill
            await asyncio.sleep(max(0.0, seconds / (2 * KILLS) - (time.monotonic() - began)))
        say(f"{number + 1} kills of each server, {it.done} rentals")


async def watched(it: Soaked, seconds: float) -> list[Growth]:
    """Look once a second."""
    lines: list[dict[str, float]] = []
    end = time.monotonic() + seconds
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < end:
            lines.append({"done": it.done, **it.usage(), "tasks": await it.tasks(session)})
            await asyncio.sleep(1)
    done = [line["done"] for line in lines]
    borne = {**BORNE, "rss_kib": BORNE["rss_kib"] if done[0] >= FULL else FILLING_KIB}
    return [growth(name, done, [line[name] for line in lines], most) for name, most in borne.items()]


async def kills(it: Soaked, found: Found, seconds: float) -> None:
    """The runtime is killed under the load, again and again."""
    for number in range(RUNTIMES):
        began = time.monotonic()
        found.cpu_s += it.usage()["cpu_s"]
        at_us = await it.kill_runtime()
        await it.until_none(f"SELECT 1 WHERE ({FIRST}) IS NULL".replace("$1", str(at_us)))
        (first,) = await it.rows(FIRST, at_us)
        await it.until_none(LEFT, at_us)
        found.first_s.append((first["at_us"] - at_us) / 1e6)
        found.all_s.append(time.time() - at_us / 1e6)
        say(f"kill {number + 1}: first step after {found.first_s[-1]:.2f} s, all after {found.all_s[-1]:.2f} s")
        await asyncio.sleep(max(1.0, seconds / RUNTIMES - (time.monotonic() - began)))


async def soak(minutes: float, nodes: int, rate: float) -> Found:
    """All three phases."""
    found, seconds = Found(), minutes * 60
    with tempfile.TemporaryDirectory(prefix="amends-soak-") as name:
        os.chmod(name, 0o755)  # noqa: PTH101, S103 - the server of a root user runs under another account
        it = Soaked(Path(name), nodes, rate)
        try:
            await it.open()
            say(f"{nodes} machines are in service")
            load = asyncio.create_task(it.customers())
            await outages(it, seconds * OUTAGES)
            found.growths = await watched(it, seconds * STILL)
            for each in found.growths:
                say(f"{each.name}: {each.first} to {each.last}, {each.each:.4f} ± {each.off:.4f} each")
            await kills(it, found, seconds * (1 - OUTAGES - STILL))
            await it.all_leave()
            await load
            found.cpu_s += it.usage()["cpu_s"]
            await it.until_none(UNDER_WAY, within_s=REST_S)
            found.violations = await it.rows("SELECT * FROM public_v1.invariant_violation")
            found.rentals, found.failed = it.done, it.failed
        finally:
            await it.close()
    return found


def table(found: Found, minutes: float, nodes: int) -> str:
    """As Markdown."""
    first = (
        f"{minutes:g} minutes, {nodes} nodes, {found.rentals} rentals, {found.failed} of them failed as a server was "
        f"away; Postgres and nats-server killed {KILLS} times each; the runtimes took {found.cpu_s:.0f} s of a core."
    )
    lines = [
        first,
        "",
        "| of the runtime | first | last | more with each rental | borne |",
        "|---|---|---|---|---|",
        *(f"| {WORDS[each.name]} | {each.first:g} | {each.last:g} | {each.each:.3f} ± {each.off:.3f} | {each.most:g} |"
          for each in found.growths),
        "",
        "| after a kill -9 of the runtime under load | n | p50 | p99 |",
        "|---|---|---|---|",
    ]  # fmt: skip
    for what, values in (("first step", found.first_s), ("all that it cut off has ended", found.all_s)):
        lines.append(f"| {what} | {len(values)} | {quantile(values, 0.5):.2f} s | {quantile(values, 0.99):.2f} s |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """0 if nothing is broken."""
    parser = argparse.ArgumentParser(prog="./run campaign soak", description="a runtime that runs and is killed")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long, beside start and end")
    parser.add_argument("--nodes", type=int, default=200, help="simulated machines")
    parser.add_argument("--rate", type=float, default=RATE, help="rentals a second")
    parser.add_argument("--report", action="store_true", help="write the figures into docs/reliability.md")
    parser.add_argument("--json", action="store_true", help="figures as one JSON object")
    o = parser.parse_args(arguments)
    found = asyncio.run(soak(o.minutes, o.nodes, o.rate))
    said = table(found, o.minutes, o.nodes)
    if o.json:
        print(json.dumps({"rentals": found.rentals, "first_s": found.first_s, "all_s": found.all_s,
                          "broken": found.broken, "cpu_s": found.cpu_s}))  # fmt: skip
    else:
        print(said)
        for each in found.broken:
            print(f"BROKEN {each}")
    if o.report:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(BLOCK.sub(lambda block: f"{block[1]}{said}\n{block[2]}", text), encoding="utf-8")
    return int(bool(found.broken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
