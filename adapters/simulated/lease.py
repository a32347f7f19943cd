"""The lease of a simulated world: renewed every second, and taken over from whoever was seen not to renew it.

The rules are those of `adapters/postgres/lease.py`: only time in which one looked counts, a holder that is known to be
dead is not waited for, and what a replaced one still writes fails at the head.
"""

import asyncio
from collections.abc import Callable

from adapters.simulated.faults import CALM, Faults, Links
from adapters.simulated.journal import Database
from amends.values.errors import Fenced, Unavailable

STALE_S = 5.0
RENEW_S = 1.0
POLL_S = 0.5
ACT_S = 5.0


class SimulatedLease:
    """Implements `amends.ports.lease.HeldLease`. `is_dead` says of a holder that its process is known to have ended."""

    def __init__(
        self, database: Database, now_s: Callable[[], float], holder: str = "holder", *,
        is_dead: Callable[[str], bool] = lambda holder: False, faults: Faults = CALM, links: Links | None = None,
    ) -> None:  # fmt: skip
        self._database, self._now_s, self._holder, self._is_dead = database, now_s, holder, is_dead
        self._faults, self._links = faults, links or Links()
        self._renewed = -STALE_S
        self._renewing: asyncio.Task[None] | None = None
        self._sight: tuple[int, float] | None = None  # the lease as it was last seen
        self._looked = self._unrenewed_s = 0.0
        self._lost = False
        self._raised = ""
        self.epoch = 0

    @property
    def age_s(self) -> float:
        """Seconds since it was renewed."""
        return self._now_s() - self._renewed

    def may_act(self) -> bool:
        """Whether an outside effect may begin now."""
        return not self._lost and self.age_s < ACT_S

    def may_answer(self) -> bool:
        """Whether a request may be answered."""
        return self.may_act()

    def fence(self) -> None:
        """Another runtime has taken over."""
        self._lost = True

    async def acquire(self) -> int:
        """Wait until it is ours; returns the new epoch, under which the journal is taken over as well."""
        while True:
            if await self._try():
                break
            await asyncio.sleep(POLL_S)
        await self._reached("lease begin")
        self._database.begin_epoch(self.epoch)
        await self._faults.after("lease begin")
        return self.epoch

    async def _try(self) -> bool:
        if not self._links.journal or self._database.away:
            return False
        began, held = self._now_s(), self._database.lease
        if held.holder and not self._is_dead(held.holder) and not self._is_stale(held.epoch, held.renewed_s, began):
            return False
        await self._reached("lease take")
        if self._database.lease == held:
            self._database.take_lease(self._holder, self._now_s())
            self.epoch, self._renewed = self._database.lease.epoch, began
        await self._faults.after("lease take")
        if not self.epoch:
            return False
        self._renewing = asyncio.create_task(self._renew(), name="lease.renew")
        return True

    def _is_stale(self, epoch: int, renewed_s: float, now: float) -> bool:
        if (epoch, renewed_s) == self._sight:
            self._unrenewed_s += min(now - self._looked, 2 * POLL_S)
        else:
            self._sight, self._unrenewed_s = (epoch, renewed_s), 0.0
        self._looked = now
        return self._unrenewed_s >= STALE_S

    async def raise_to(self, epoch: int, why: str, kind: str, body: bytes, at_us: int) -> None:
        """See `HeldLease.raise_to`."""
        await self._reached("lease raise")
        if self._database.raise_lease(self.epoch, epoch, kind, body.decode()):
            self._raised, self._lost = why, True
        await self._faults.after("lease raise")

    async def run(self) -> None:
        """Until cancelled; raises `Fenced` when another runtime has taken it."""
        assert self._renewing is not None
        await asyncio.shield(self._renewing)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            began = self._now_s()
            try:
                await self._reached("lease renew")
            except Unavailable:
                continue
            held = self._database.renew_lease(self.epoch, self._now_s())
            await self._faults.after("lease renew")
            if not held:
                self._lost = True
                raise Fenced(self._raised or f"another runtime has taken the lease from epoch {self.epoch}")
            self._renewed = began

    async def _reached(self, what: str) -> None:
        await self._faults.before(what)
        if not self._links.journal or self._database.away:
            raise Unavailable("the simulated database is away")

    async def aclose(self) -> None:
        """Give it back, if it is ours."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        if self._links.journal and not self._database.away:
            self._database.give_lease(self.epoch)
