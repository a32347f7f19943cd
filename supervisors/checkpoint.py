"""The checkpoint of last-seen times: written in bulk by parts of the fleet, in slices, never twice at once.

A node's part (`part_of`) is reckoned once, when it becomes known: what is heard a hundred thousand times in one period
then costs a look at a dictionary each.
"""

import asyncio
from collections.abc import Iterable, Iterator
from functools import partial
from sys import intern

from actors.tables import NodesSeenRow, part_of
from amends.ports.journal import Turn
from amends.runtime.engine import Engine
from amends.runtime.slices import Slices
from amends.runtime.writer import Pending
from amends.values.canonical import canonical
from amends.values.errors import TurnFailed
from supervisors.last_seen import LastSeen

SAVED_AT_ONCE = 8  # parts of the fleet that one turn writes: of 100 000 nodes they are 3 000


class Checkpoint:
    """Which parts of the fleet were heard since they were last written. Told by the detector."""

    def __init__(self, engine: Engine, last_seen: LastSeen) -> None:
        self._engine, self._seen = engine, last_seen.nodes
        self._part: dict[str, str] = {}  # of each known node
        self._nodes: dict[str, dict[str, None]] = {}  # of each part
        self._dirty: set[str] = set()  # parts
        self._saving: set[str] = set()  # parts on their way

    def know(self, node_id: str) -> None:
        """A node that may be heard from now on."""
        if node_id not in self._part:
            part = self._part[node_id] = intern(part_of(node_id))
            self._nodes.setdefault(part, {})[node_id] = None

    def forget(self, node_id: str) -> None:
        """It is heard no more."""
        part = self._part.pop(node_id, None)
        if part is not None:
            del self._nodes[part][node_id]

    def heard(self, node_ids: Iterable[str]) -> None:
        """Known nodes were heard."""
        self._dirty.update(map(self._part.__getitem__, node_ids))

    async def run(self) -> None:
        """Write every `last_seen_checkpoint_ms`, until cancelled."""
        period_s = self._engine.context.limits("last_seen_checkpoint_ms") / 1000
        while True:
            await asyncio.sleep(period_s)
            slices = Slices(self._engine.monotonic_us)
            for _ in () if self._engine.stopping else self._save():
                await slices.shared()
                await self._engine.writer.room()

    def save(self) -> None:
        """Write at once what was heard since it was last written."""
        for _ in self._save():
            pass

    def _save(self) -> Iterator[None]:
        """A turn for some parts each, unless they are on their way still; others may have the loop after each."""
        due = sorted(self._dirty - self._saving)
        for start in range(0, len(due), SAVED_AT_ONCE):
            left = self._dirty - self._saving
            parts = [part for part in due[start : start + SAVED_AT_ONCE] if part in left]
            if not parts:  # a stop has written them meanwhile
                continue
            self._dirty.difference_update(parts)
            self._saving.update(parts)
            turn = Turn()
            turn.rows = [NodesSeenRow(part, canonical(self._seen_of(part)).decode()) for part in parts]
            self._engine.writer.submit(Pending(turn, partial(self._saved, parts)))
            yield

    def _seen_of(self, part: str) -> dict[str, tuple[str, int]]:
        found = {node_id: self._seen.get(node_id) for node_id in self._nodes[part]}
        return {node_id: (seen.boot_id, seen.us) for node_id, seen in found.items() if seen is not None and seen.us}

    def _saved(self, parts: list[str], error: TurnFailed | None) -> None:
        self._saving.difference_update(parts)
        if error is not None:
            self._dirty.update(parts)
