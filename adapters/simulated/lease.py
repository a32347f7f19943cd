"""The lease of a simulated world: who took it last has it; a runtime that is paused wakes up fenced."""

import asyncio
from collections.abc import Callable

from adapters.simulated.journal import Database
from amends.values.errors import Fenced

POLL_S = 1.0


class SimulatedLease:
    """Implements `amends.ports.lease.HeldLease`: taken at once, as from a holder that is dead."""

    def __init__(self, database: Database, now_s: Callable[[], float]) -> None:
        self._database, self._now_s = database, now_s
        self._renewed = now_s()
        self._lost = False
        self.epoch = database.head.epoch + 1
        database.begin_epoch(self.epoch)

    @property
    def age_s(self) -> float:
        """Seconds since it was renewed."""
        return self._now_s() - self._renewed

    def may_act(self) -> bool:
        """Whether an outside effect may begin now."""
        return not self._lost and self.age_s < 5.0

    def may_answer(self) -> bool:
        """Whether a request may be answered."""
        return self.may_act()

    def fence(self) -> None:
        """Another runtime has taken over."""
        self._lost = True

    async def run(self) -> None:
        """Renew until cancelled; raises `Fenced`."""
        while True:
            if self._database.head.epoch != self.epoch:
                self._lost = True
                raise Fenced(f"another runtime has taken the lease from epoch {self.epoch}")
            if not self._database.away:
                self._renewed = self._now_s()
            await asyncio.sleep(POLL_S)

    async def aclose(self) -> None:
        """Nobody waits for it."""
