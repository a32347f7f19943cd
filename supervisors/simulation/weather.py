"""The weather of a random world: faults that come and go by chance, until it is calm.

It outlives runtimes: what it has begun stays over a crash, and is over when its time has come.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Final

from adapters.simulated.faults import Links
from supervisors.simulation.chronicle import Chronicle
from supervisors.simulation.fault_kinds import BY_NAME, FaultKind, Sky, Spell, queues
from supervisors.simulation.storm import Storm
from supervisors.simulation.world import World

GAP: Final = 1.5  # paces between two faults, on the average, of ten machines
USUAL: Final = 1.5  # paces that a fault stays
LONG: Final = 0.08  # share of those that stay longer
LONGER: Final = 12.0  # … and how much
TROUBLE: Final = 10.0  # paces that a fault of a machine may have effects
AGAIN: Final = 0.2  # share of crashes after which the next runtime crashes as well


class Weather:
    """See above. `pace_s`: how long it takes here until a silent node is offline; all else is in proportion."""

    def __init__(
        self, world: World, chronicle: Chronicle, *, seed: str, pace_s: float, kinds: Sequence[str], nodes: int
    ) -> None:
        self._world, self._chronicle, self.pace_s = world, chronicle, pace_s
        self._chance = random.Random(seed)  # noqa: S311 - a simulated world's
        self._kinds = [BY_NAME[name] for name in kinds]
        self._gap_s = GAP * pace_s / (0.5 + nodes / 20)
        self.spells: list[Spell] = []
        self.over: dict[str, float] = {}  # by machine: when the last fault on it was over
        self.begun = Counter[str]()
        self.crashes = 0
        self.sky = Sky(world, random.Random(f"{seed}/sky"), Storm(), Links())  # noqa: S311 - a simulated world's
        self._next_s = 0.0
        self.calm = True

    # --- for whoever runs the world ------------------------------------------------------------------

    def over_runtime(self, links: Links) -> None:
        """A runtime runs now; what stays is there for it as well."""
        self.sky.links = links
        links.bus = not any(spell.kind == "bus-away" for spell in self.spells)

    def died(self) -> None:
        """A runtime has crashed; perhaps the next one does so while it recovers."""
        self.crashes += 1
        self._chronicle.note(f"died  {self.sky.storm.died_at}")
        if not self.calm and self._chance.random() < AGAIN:
            self.sky.storm.die_in = self._chance.randint(1, 80)

    def clear(self) -> None:
        """It is calm, and all faults are over."""
        self.calm = True
        for spell in list(self.spells):
            self._end(spell)
        self.sky.storm.die_in = self.sky.storm.lose_in = 0
        for queue in queues(self._world):
            queue.clear()
        self._world.stripe.book.faults.mend()

    def brew(self) -> None:
        """From now on there are faults again."""
        self.calm = not self._kinds
        self._next_s = self._world.time() + self._chance.expovariate(1 / self._gap_s)

    def catch_up(self) -> None:
        """What is due now begins, and what has had its time is over."""
        now_s = self._world.time()
        for spell in [each for each in self.spells if each.ends_s <= now_s]:
            self._end(spell)
        while not self.calm and self._next_s <= now_s:
            self._begin(self._chosen())
            self._next_s += self._chance.expovariate(1 / self._gap_s)

    async def blow(self) -> None:
        """Until cancelled."""
        while True:
            self.catch_up()
            due = [spell.ends_s for spell in self.spells]
            if not self.calm:
                due.append(self._next_s)
            wait_s = min(due, default=self._world.time() + self.pace_s) - self._world.time()
            await asyncio.sleep(max(0.001, min(wait_s, self.pace_s)))

    def fired(self) -> Counter[str]:
        """How often each kind has met somebody; of those that wait, how often one did."""
        found = Counter({name: count for name, count in self.begun.items() if not BY_NAME[name].waits})
        if "commit-reply-lost" in found:
            found["commit-reply-lost"] = self.sky.storm.lost
        if "crash" in found:
            found["crash"] = self.crashes
        for queue in queues(self._world):
            found.update(queue.met)
        return found

    # --- what comes ----------------------------------------------------------------------------------

    def _chosen(self) -> FaultKind:
        return self._chance.choices(self._kinds, [kind.weight for kind in self._kinds])[0]

    def _begin(self, kind: FaultKind) -> None:
        chance, now_s = self._chance, self._world.time()
        targets = {"machine": sorted(self._world.machines.machines), "provider": ["p1"], "world": [""]}[kind.of]
        target = chance.choice(targets)
        stays_s = kind.stays * self.pace_s * USUAL * chance.expovariate(1.0)
        stays_s *= LONGER if chance.random() < LONG else 1.0
        if any((spell.kind, spell.target) == (kind.name, target) for spell in self.spells):
            return
        said = kind.begins(self.sky, target)
        self.begun[kind.name] += 1
        self._chronicle.note(" ".join(filter(None, ("fault", kind.name, target, said))))
        if kind.ends is not None:
            self.spells.append(Spell(kind.name, target, now_s, now_s + stays_s))
        if kind.of == "machine":
            self.over[target] = now_s

    def _end(self, spell: Spell) -> None:
        self.spells.remove(spell)
        ends = BY_NAME[spell.kind].ends
        assert ends is not None
        ends(self.sky, spell.target)
        now_s = self._world.time()
        if BY_NAME[spell.kind].of == "world":  # what befell a machine shortly before is perhaps heard of only now
            late = [name for name, at_s in self.over.items() if at_s >= spell.began_s - TROUBLE * self.pace_s]
            self.over.update(dict.fromkeys(late, now_s))
        else:
            self.over[spell.target] = now_s
        self._chronicle.note(f"over  {spell.kind} {spell.target}".rstrip())

    def troubled(self, node_id: str) -> bool:
        """Whether something was wrong with that very machine lately; an outage of something shared does not count."""
        since_s = self._world.time() - TROUBLE * self.pace_s
        return any(spell.target == node_id for spell in self.spells) or self.over.get(node_id, since_s - 1) >= since_s
