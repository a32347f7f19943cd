"""Two runtimes in one simulated world: a leader, and a standby that takes over when it sees the lease unrenewed.

    with Pair(world, story.tell, points) as pair:
        pair.leader.loop.pause()                   # as by SIGSTOP; or `pair.leader.running.links.journal = False`
        pair.run(lambda: pair.standby.told)        # the standby has taken over and told the story to its end

Each is a process of its own (`adapters/simulated/processes.py`) with clients of its own, who ask for the same things
with the same keys.
"""

from collections.abc import Callable
from typing import Self

from adapters.simulated.loop import VirtualLoop
from adapters.simulated.processes import Processes
from supervisors.simulation.points import Points
from supervisors.simulation.world import PATIENCE_S, Running, Tell, World


class Process:
    """One runtime as a process: it stands by if it must, tells the story, and ends."""

    def __init__(self, world: World, loop: VirtualLoop, story: Tell, points: Points, name: str) -> None:
        points.loop = self.loop = loop
        self.running = Running(world, loop, points, name)
        self._life = loop.create_task(self.running.live(story), name=name)
        self._life.add_done_callback(lambda done: loop.crash())  # a process that has come to its end is gone

    @property
    def told(self) -> bool:
        """Whether it has come to a good end."""
        return self._life.done() and self._life.exception() is None

    @property
    def failed(self) -> BaseException | None:
        """What ended it otherwise, such as `Fenced`; None while it lives."""
        return self._life.exception() if self._life.done() else None


class Pair:
    """See above. `points` are the leader's."""

    def __init__(self, world: World, story: Tell, points: Points | None = None, seed: int = 0) -> None:
        self.world = world
        self._processes = Processes(world.now_s, seed)
        self.leader = Process(world, self._processes.add(), story, points or Points(), "leader")
        self.run(lambda: bool(world.database.lease.holder))
        self.standby = Process(world, self._processes.add(), story, Points(), "standby")

    def run(self, until: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        """Let time pass until it holds."""
        self._processes.run(until, patience_s)

    def run_for(self, seconds: float) -> None:
        """Let so much time pass."""
        self._processes.run_for(seconds)

    @property
    def now_s(self) -> float:
        """What time it is, in virtual seconds."""
        return self._processes.clock.now

    @property
    def taken_over(self) -> bool:
        """Whether the journal is the standby's."""
        return self.world.database.head.epoch == self.standby.running.lease.epoch > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.world.now_s = self.now_s + 1.0
        self._processes.bury()
