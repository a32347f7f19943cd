"""What has come to pass in the last hour, minute by minute, counted as turns commit; a start begins anew."""

from collections.abc import Callable, Sequence
from typing import Final

from amends.turn.decision import Decision
from amends.values.records import CompensationRow, FailureRow

MINUTES: Final = 60
RENTALS, FAILURES, AMENDS = NAMES = ("rentals asked for", "failures", "compensations")


class Rates:
    """`MINUTES` counts of each name, the running minute last."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._counts = {name: [0] * MINUTES for name in NAMES}
        self._minute = self._running()

    def follow(self, decision: Decision) -> None:
        """A turn has committed."""
        if decision.kind.name == "allocation" and decision.before is None and decision.state is not None:
            self._count(RENTALS)
        for row in decision.rows:
            if type(row) is FailureRow:
                self._count(FAILURES)
            elif type(row) is CompensationRow:
                self._count(AMENDS)

    def last_hour(self) -> dict[str, Sequence[int]]:
        """By name, the oldest minute first."""
        self._turn()
        return {name: tuple(counts) for name, counts in self._counts.items()}

    def _count(self, name: str) -> None:
        self._turn()
        self._counts[name][-1] += 1

    def _turn(self) -> None:
        """Let what is older than an hour go."""
        passed = self._running() - self._minute
        if passed > 0:
            self._minute += passed
            for name, counts in self._counts.items():
                self._counts[name] = [*counts[min(passed, MINUTES) :], *([0] * min(passed, MINUTES))]

    def _running(self) -> int:
        return self._now_us() // 60_000_000
