"""How many steps run at once, and which targets are left alone for a while: nobody's trouble takes all the places.

Places are counted over all, per adapter and per failure domain of an adapter, so that a site that hangs leaves places
for the others. A target that cannot be reached three times in a row is tried by one step at a time after growing
waits; what waits for it spends no try.
"""

from collections import Counter, OrderedDict

from amends.ports.steps import Outcome
from amends.runtime.breaker import Breaker
from amends.values.backoff import Backoff

IN_FLIGHT, PER_ADAPTER, PER_DOMAIN = 512, 256, 128
UNREACHABLE = 3  # in a row
WAITS = Backoff(200, 10_000)
REMEMBERED = 10_000  # targets in trouble

Key = tuple[str, ...]


class Places:
    """Places taken, and the targets that wait for one."""

    def __init__(
        self, in_flight: int = IN_FLIGHT, per_adapter: int = PER_ADAPTER, per_domain: int = PER_DOMAIN
    ) -> None:
        self._limits = (in_flight, per_adapter, per_domain)  # by the length of the key
        self._taken: Counter[Key] = Counter()
        self._waiting: dict[Key, OrderedDict[str, None]] = {}

    def take(self, adapter: str, domain: str, target: str) -> bool:
        """Take a place; where none is free the target is named again once one is."""
        keys = _keys(adapter, domain)
        for key in keys:
            if self._taken[key] >= self._limits[len(key)]:
                self._waiting.setdefault(key, OrderedDict())[target] = None
                return False
        self._taken.update(keys)
        return True

    def give(self, adapter: str, domain: str) -> None:
        """Give a place back."""
        for key in _keys(adapter, domain):
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]

    def named(self) -> list[str]:
        """Those that may ask again, first come first. Ask until none is named: not everyone takes its place."""
        found: list[str] = []
        for key, waiting in list(self._waiting.items()):
            spare = min(len(waiting), self._limits[len(key)] - self._taken[key])
            found += [waiting.popitem(last=False)[0] for _ in range(spare)]
            if not waiting:
                del self._waiting[key]
        return found


class Reach:
    """A breaker for each way (adapter) to a target that could not be reached of late."""

    def __init__(self) -> None:
        self._troubled: dict[tuple[str, str], tuple[Breaker, int]] = {}

    def held_until(self, adapter: str, target: str) -> int:
        """When the next step may try it, in microseconds; 0 for now."""
        troubled = self._troubled.get((adapter, target))
        return troubled[1] if troubled is not None and troubled[0].failures >= UNREACHABLE else 0

    def took(self, adapter: str, target: str, outcome: Outcome, now_us: int) -> None:
        """A step on it has ended; whatever shows that it was there makes it reachable."""
        way = (adapter, target)
        if outcome.kind == "done" or (outcome.may_have_run and not outcome.code.endswith("timeout")):
            self._troubled.pop(way, None)
            return
        breaker = self._troubled.pop(way, (Breaker(target, WAITS, lambda: now_us), 0))[0]
        breaker.failed()
        self._troubled[way] = (breaker, now_us + int(breaker.wait_s * 1e6))  # the newest last
        if len(self._troubled) > REMEMBERED:
            del self._troubled[next(iter(self._troubled))]

    def forget(self, target: str) -> None:
        """It is back, or somebody wants to know now."""
        for way in [way for way in self._troubled if way[1] == target]:
            del self._troubled[way]

    def __len__(self) -> int:
        return sum(breaker.failures >= UNREACHABLE for breaker, _ in self._troubled.values())


def _keys(adapter: str, domain: str) -> tuple[Key, ...]:
    return ((), (adapter,), (adapter, domain)) if domain else ((), (adapter,))
