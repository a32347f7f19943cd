"""The comparison with the world: each node, namespace and account is asked now and then to look at its part of it.

One after another, spread over `world_every_ms`, and never more than `PER_SECOND`: a large fleet takes longer. The first
round after a start is shorter, or one who is restarted often would never come to its end. What a difference is, is the
entity's own decision.
"""

import asyncio
from collections.abc import Callable

from actors.differences import LookAround
from amends.domain.kinds import ActorState
from amends.runtime.engine import Engine
from amends.turn.messages import Envelope
from supervisors.indexing import all_of

PER_SECOND = 20
FIRST = 6  # the part of a round that the first one takes
Wanted = Callable[[str, str, ActorState], bool]  # kind, id, state
KINDS = ("node", "namespace", "account")


class WorldLooks:
    """Tells them; `wanted` says of whom there is something to be asked."""

    def __init__(self, engine: Engine, wanted: Wanted) -> None:
        self._engine, self._wanted = engine, wanted
        self.asked = 0

    async def run(self) -> None:
        """Until cancelled, round after round."""
        every_s = self._engine.context.limits("world_every_ms") / 1000
        round_s = every_s / FIRST
        while True:
            found = [
                (kind, name) for kind in KINDS
                async for name, state in all_of(self._engine, kind) if self._wanted(kind, name, state)
            ]  # fmt: skip
            if not found:
                await asyncio.sleep(round_s)
            for kind, name in found:
                await asyncio.sleep(max(round_s / len(found), 1 / PER_SECOND))
                self._ask(kind, name)
            round_s = every_s

    def _ask(self, kind: str, name: str) -> None:
        """One that is paused by a case is left alone."""
        state = self._engine.store.get(kind, name)
        if state is not None and not state.paused and self._wanted(kind, name, state):
            self.asked += 1
            self._engine.tell(kind, name, Envelope(LookAround(), priority=True))
