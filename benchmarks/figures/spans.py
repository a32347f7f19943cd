"""`python -m benchmarks.figures.spans`: an exporter that has fallen behind.

`spans_per_s`: spans a second, from reading their records to the receiver's acknowledgement, while nothing else is done
than reading, encoding, sending and (at the receiver) decoding; half of the spans are of lives that were undone.
Afterwards the receiver has each of them, or the figure is refused. Exporter, Postgres and receiver are processes of
their own: it is no figure of one core.
"""

import time

from benchmarks.everything import surroundings
from benchmarks.figures.printing import Report, main, say
from benchmarks.receiver import received
from benchmarks.running import kernel, lives

NAMES: tuple[str, ...] = ("spans_per_s",)
DONE, UNDONE, IN_FLIGHT = 10_000, 3_000, 512


async def measure(report: Report, scale: float) -> None:
    """See above."""
    done, undone = (max(16, int(each * scale)) for each in (DONE, UNDONE))
    async with surroundings() as around:
        async with kernel(around.dsn) as it:
            await lives(it, done, min(IN_FLIGHT, done), doomed=False)
            await lives(it, undone, min(IN_FLIGHT, undone), doomed=True)
        async with around.kernel() as it:
            due = await around.spans_in_all()
            say(f"spans: {due} of them")
            while not await received(around.receiver_url):  # the process that sends them is up
                pass
            first, began = await received(around.receiver_url), time.perf_counter()
            await around.drained_s(it)
            took = time.perf_counter() - began
        arrived = await received(around.receiver_url)
    assert arrived >= due, f"{arrived} of {due} spans have arrived"
    report("spans_per_s", [(arrived - first) / took], "/s")


if __name__ == "__main__":
    main(measure)
