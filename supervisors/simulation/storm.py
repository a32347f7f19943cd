"""The points of a random world: where it dies, and where the reply to a commit is lost. They remember nothing."""

import asyncio

from amends.values.errors import Unavailable
from supervisors.simulation.points import MOMENT_S, Points


class Storm(Points):
    """Points without memory. `die_in` and `lose_in` count the calls until something happens; 0 for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.die_in = self.lose_in = 0
        self.died_at = ""
        self.lost = 0

    async def before(self, what: str) -> None:
        """It takes its moment, and may be the last thing that is tried."""
        await asyncio.sleep(MOMENT_S)
        await self._perhaps_die(what, "before")

    async def after(self, what: str) -> None:
        """It is done, which perhaps nobody hears."""
        await self._perhaps_die(what, "after")
        if self.lose_in and what.startswith("commit "):
            self.lose_in -= 1
            if not self.lose_in:
                self.lost += 1
                raise Unavailable("the reply to COMMIT is lost")

    async def _perhaps_die(self, what: str, when: str) -> None:
        if self.die_in:
            self.die_in -= 1
            if not self.die_in:
                self.died_at = f"{when} {what}"
                self.loop.crash()
                await asyncio.sleep(0)  # who is dead does not come back from here
