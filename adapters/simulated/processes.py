"""Several processes under one virtual clock, each a loop of its own: they share the world outside and nothing else.

Each round steps every process that has something to do; when none has, time goes on to the next that will. A paused
one is passed over: what it was to do meanwhile is late when it goes on.
"""

import contextlib
import random
from collections.abc import Callable

from adapters.simulated.loop import NEVER, Clock, Crashed, VirtualLoop


class Standstill(AssertionError):
    """What was waited for has not come in its time, or nobody has anything to do any more."""


class Processes:
    """See above. Who goes first in a round is the seed's choice."""

    def __init__(self, start_s: float = 0.0, seed: int = 0) -> None:
        self.clock = Clock(start_s)
        self._loops: list[VirtualLoop] = []
        self._chance = random.Random(seed)  # noqa: S311 - a simulated world's

    def add(self) -> VirtualLoop:
        """One more process."""
        loop = VirtualLoop(clock=self.clock)
        self._loops.append(loop)
        return loop

    def run(self, until: Callable[[], bool], patience_s: float) -> None:
        """Let time pass until it holds; raises `Standstill`, `Livelock`."""
        deadline = self.clock.now + patience_s
        while not until():
            if not self._round(deadline):
                waiting = "; ".join(loop.waiting() for loop in self._loops if not loop.dead)
                raise Standstill(f"after {patience_s} s: {until} does not come true; these go on: {waiting}")

    def run_for(self, seconds: float) -> None:
        """Let so much time pass."""
        deadline = self.clock.now + seconds
        while self._round(deadline):
            continue

    def _round(self, deadline: float) -> bool:
        """Step who is next, in time; False if nobody is until then."""
        runs = [loop for loop in self._loops if not loop.dead and not loop.paused]
        due = min((loop.next_s() for loop in runs), default=NEVER)
        self.clock.now = max(self.clock.now, min(due, deadline))
        if due > deadline:
            return False
        now = [loop for loop in runs if loop.next_s() <= self.clock.now]
        self._chance.shuffle(now)
        for loop in now:
            with contextlib.suppress(Crashed):
                loop.step()
        return True

    def bury(self) -> None:
        """All are dead: close what hung in them."""
        for loop in self._loops:
            loop.bury()
            loop.close()
