"""What is measured on each peer, and how its figures come of the runs. Knows no peer."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

Report = Callable[[str, Sequence[float], str], None]
Say = Callable[[str], None]
IN_FLIGHT, ALONE, RUNS, WARM_UP = 512, 200, 3, 128
CASES = (("happy", "life", False), ("compensated", "compensated", True))  # its name at 512, at one, whether doomed


class Run(NamedTuple):
    """A closed loop of lives: how long all of them took, and each of them."""

    seconds: float
    latencies_ms: Sequence[float]

    @property
    def rate(self) -> float:
        """Lives a second."""
        return len(self.latencies_ms) / self.seconds


class Peer(Protocol):
    """A peer that runs."""

    name: str
    lives: int  # of one run at full size

    async def run(self, lives: int, in_flight: int, *, doomed: bool) -> Run:
        """So many lives, all of which ended as they should. Raises Broken otherwise."""
        ...


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


async def measure(peer: Peer, report: Report, say: Say, scale: float) -> None:
    """Both kinds of lives, three runs each: their rate with 512 in flight, how long one takes alone."""
    crowd, alone = max(IN_FLIGHT, int(peer.lives * scale)), max(10, int(ALONE * scale))
    for _, _, doomed in CASES:
        await peer.run(WARM_UP, WARM_UP, doomed=doomed)
    for crowded, single, doomed in CASES:
        rates = [(await peer.run(crowd, IN_FLIGHT, doomed=doomed)).rate for _ in range(RUNS)]
        say(f"{peer.name}, {crowded}, {IN_FLIGHT} in flight: {statistics.median(rates):.0f} a second")
        report(f"peer_{peer.name}_{crowded}_{IN_FLIGHT}", rates, "/s")
        runs = [(await peer.run(alone, 1, doomed=doomed)).latencies_ms for _ in range(RUNS)]
        for percent in (50, 99):
            report(f"peer_{peer.name}_{single}_ms_p{percent}_1", [percentile(run, percent) for run in runs], "ms")
