"""`python -m benchmarks.figures.turns`: plain durable turns for a minute, from an empty database, across checkpoints.

`turns_sustained`: turns a second with 512 in flight, each a new state of one of 512 actors; the slowest ten seconds of
the minute count, the first ones among them. Postgres alone is beside: turns have no events, spans or steps.
"""

import asyncio
import os
import time
from collections.abc import Callable

from amends.kernel import Kernel
from amends.turn.messages import Envelope
from amends.values import ids
from benchmarks.figures.printing import Report, main, say
from benchmarks.figures.servers import folder, postgres
from benchmarks.lives import Touch
from benchmarks.running import kernel

NAMES: tuple[str, ...] = ("turns_sustained",)
PARTS, PART_S, IN_FLIGHT = 6, 10.0, 512


async def measure(report: Report, scale: float) -> None:
    """See above."""
    async with folder() as state, postgres(state) as server, kernel(server.dsn) as it:
        rates = await _parts(it, PART_S * scale)
    report("turns_sustained", [min(rates)], "/s")


async def _parts(it: Kernel, part_s: float) -> list[float]:
    """Turns a second of each part of the time."""
    names = [ids.type_id("evt", time.time_ns() // 1000, os.urandom(10)) for _ in range(IN_FLIGHT)]
    going, left = True, IN_FLIGHT
    over = asyncio.Event()

    def touch(name: str) -> Callable[[bool], None]:
        def again(ok: bool) -> None:
            nonlocal left
            assert ok
            if going:
                it.engine.tell("life", name, Envelope(Touch(), priority=True, fresh=True, done=again))
            else:
                left -= 1
                if not left:
                    over.set()

        return again

    for name in names:
        touch(name)(True)
    rates = []
    for number in range(PARTS):
        turns, began = it.writer.turns, time.perf_counter()
        await asyncio.sleep(part_s)
        rates.append((it.writer.turns - turns) / (time.perf_counter() - began))
        say(f"turns: part {number + 1} of {PARTS}: {rates[-1]:.0f} a second")
    going = False
    await over.wait()
    return rates


if __name__ == "__main__":
    main(measure)
