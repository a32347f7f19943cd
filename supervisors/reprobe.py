"""Probes of what waits: each node that is ready and has no customer is tried again now and then.

One after another, spread over `reprobe_ms`, and never more than `PER_SECOND`: a large fleet takes longer. It judges
nobody: what a failed probe means is the node's own decision.
"""

import asyncio

from actors.node.messages import Reprobe
from amends.runtime.engine import Engine
from amends.turn.messages import Envelope
from supervisors.pool import Pool

PER_SECOND = 50
LOOKS = 10  # in the time of one round, where no node is free


class Reprobes:
    """Asks the pool's free nodes, in its order, to be probed."""

    def __init__(self, engine: Engine, pool: Pool) -> None:
        self._engine, self._pool = engine, pool
        self.asked = 0

    async def run(self) -> None:
        """Until cancelled, round after round."""
        round_s = self._engine.context.limits("reprobe_ms") / 1000
        while True:
            nodes = self._pool.free_nodes()
            if not nodes:
                await asyncio.sleep(round_s / LOOKS)
            for node_id in nodes:
                await asyncio.sleep(max(round_s / len(nodes), 1 / PER_SECOND))
                self._ask(node_id)

    def _ask(self, node_id: str) -> None:
        """One that has been taken meanwhile, or is silent, is left alone."""
        if self._pool.is_free(node_id) and self._pool.is_heard(node_id):
            self.asked += 1
            self._engine.tell("node", node_id, Envelope(Reprobe(), priority=True))
