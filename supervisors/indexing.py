"""Going through all actors of a kind at a start: in slices, since the lease must be renewed meanwhile."""

from collections.abc import AsyncIterator

from amends.domain.kinds import ActorState
from amends.runtime.engine import Engine
from amends.runtime.slices import Slices


async def all_of(engine: Engine, kind: str) -> AsyncIterator[tuple[str, ActorState]]:
    """Id and state of each that is in memory, while nothing commits."""
    slices = Slices(engine.monotonic_us)
    for found in engine.store.items(kind):
        await slices.shared()
        yield found
