"""The detector: when each node was last heard, and who has fallen silent. No actor and no timer per node.

A table of last-seen times and one lazily re-armed heap. A blind detector judges nobody: while the link to NATS is
down, or the canary has not come back through the broker, every deadline waits and starts again in full with sight;
time that the event loop lost is credited to all. Verdicts (offline) belong to the node-loss rows. A node's actor has
one word of the detector's before it at a time, however often the world changes meanwhile; the next one says how it is
then.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterator
from functools import partial

from actors.node.messages import HeartbeatSeen, Silent
from actors.node.state import Node
from actors.tables import NodeSeenRow
from amends.ports.journal import Turn
from amends.runtime.engine import Engine
from amends.runtime.slices import Slices
from amends.runtime.writer import Pending
from amends.turn.decision import Decision
from amends.turn.messages import Envelope
from amends.values.errors import TurnFailed
from supervisors.boots import BootIds
from supervisors.last_seen import LastSeen, Seen

STALL_S = 0.1
SAVED_AT_ONCE = 2_000  # nodes whose last-seen times one turn writes
AGAIN_S = 1.0  # after which a node that took no word (it is held) is told anew


class Detector:
    """Turns the absence and return of heartbeats into messages to node actors. `monotonic` in seconds.

    It alone writes `last_seen`. Follows committed turns.
    """

    def __init__(
        self, engine: Engine, last_seen: LastSeen, *, monotonic: Callable[[], float], linked: Callable[[], bool]
    ) -> None:
        self._engine, self._mono, self._linked = engine, monotonic, linked
        self._suspect_s = engine.context.limits("suspect_after_ms") / 1000
        self._boots = BootIds(engine.context.limits("flap_window_ms") / 1000)
        self._seen = last_seen.nodes
        self._known: set[str] = set()
        self._heap: list[tuple[float, str]] = []
        self._dirty: dict[str, None] = {}  # as they were heard
        self._saving = 0  # turns with last-seen times on their way
        self._told: set[str] = set()  # nodes that have yet to take in what they were told
        self._owed: dict[str, str] = {}  # of those, who is to be told more: a rival's boot id, or ""
        self._refused: set[str] = set()
        self._again_at = monotonic()
        self._canary = monotonic()
        self._sight_since = monotonic()
        self._blind = False
        self.unknown = 0

    # --- what is heard -------------------------------------------------------------------------------

    def heard(self, node_id: str, boot_id: str) -> None:
        """A heartbeat has arrived, now."""
        if node_id not in self._known:
            self.unknown += 1
            return
        now, us = self._mono(), self._engine.now_us()
        seen = self._seen.get(node_id)
        again, moved = seen is None or seen.silent, False
        if seen is None:
            self._seen[node_id] = Seen(boot_id, now, us, silent=False)
            heapq.heappush(self._heap, (now + self._suspect_s, node_id))
        else:
            if seen.silent:
                heapq.heappush(self._heap, (now + self._suspect_s, node_id))
            moved = seen.boot_id not in ("", boot_id)
            if moved:
                self._boots.changed(node_id, seen.boot_id, boot_id, now)
            again = again or not seen.boot_id
            seen.boot_id, seen.at, seen.us, seen.silent = boot_id, now, us, False
        self._dirty[node_id] = None
        if moved:
            self._tell_boots(now, node_id)
        elif again:
            self._tell(node_id)

    def _tell_boots(self, now: float, node_id: str = "") -> None:
        for each, rival in self._boots.due(now, node_id):
            self._tell(each, rival)

    def _tell(self, node_id: str, rival: str = "") -> None:
        """Tell a node how it is heard now, once it has taken in what it was told before."""
        seen = self._seen.get(node_id)
        if seen is None:
            return
        if node_id in self._told:
            self._owed[node_id] = rival or self._owed.get(node_id, "")
            return
        self._told.add(node_id)
        message = Silent(seen.us) if seen.silent else HeartbeatSeen(seen.boot_id, seen.us, rival)
        env = Envelope(message, priority=True, done=lambda taken: self._taken(node_id, taken))
        self._engine.tell("node", node_id, env)

    def _taken(self, node_id: str, taken: bool) -> None:
        self._told.discard(node_id)
        rival = self._owed.pop(node_id, None)
        if not taken:
            self._refused.add(node_id)
        elif rival is not None:
            self._tell(node_id, rival)

    def canary(self) -> None:
        """Our own heartbeat came back through the broker."""
        self._canary = self._mono()

    @property
    def blind(self) -> bool:
        """Whether it judges nobody now."""
        return self._blind

    @property
    def watched(self) -> int:
        """How many nodes are known."""
        return len(self._known)

    def follow(self, decision: Decision) -> None:
        """A turn has committed: of nodes, a new state counts."""
        node, before = decision.state, decision.before
        if not isinstance(node, Node):
            return
        if node.way_back.returning and not (isinstance(before, Node) and before.way_back.returning):
            self._boots.forget(decision.id)  # an operator's word counts against what was heard before it
        if before is None or before.state != node.state:
            self.on_node(decision.id, node)

    def on_node(self, node_id: str, node: Node) -> None:
        """A node's state has changed, or it was loaded. Whoever may be rented is watched, however it came to that."""
        if node.state == "retired":
            self._known.discard(node_id)
            self._seen.pop(node_id, None)
            self._boots.forget(node_id)
            return
        self._known.add(node_id)
        if node.state not in ("ready", "draining"):
            return
        now, seen = self._mono(), self._seen.get(node_id)
        if seen is None:  # not heard since the start: a full deadline from now on
            self._seen[node_id] = Seen(node.boot_id or "", now, node.last_heartbeat_us or 0, silent=False)
            heapq.heappush(self._heap, (now + self._suspect_s, node_id))
        elif seen.silent:  # known to be silent, and its new state does not say so: it is suspected at the next look
            seen.silent = False
            heapq.heappush(self._heap, (now, node_id))

    # --- watching ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch until cancelled, in ticks of a tenth of the suspicion time."""
        tick = max(0.02, min(self._suspect_s / 10, 1.0))
        last = self._mono()
        while True:
            await asyncio.sleep(tick)
            now = self._mono()
            lost = now - last - tick
            last = now
            if lost > STALL_S:
                self._credit(lost)
            slices = Slices(self._engine.monotonic_us)
            for _ in self._look(now):
                await slices.shared()
                await self._engine.writer.room()

    async def checkpoint(self) -> None:
        """Write last-seen times in bulk, every `last_seen_checkpoint_ms`."""
        period = self._engine.context.limits("last_seen_checkpoint_ms") / 1000
        while True:
            await asyncio.sleep(period)
            if not self._engine.stopping:
                self.save()

    def save(self) -> None:
        """Write what was heard since the last time, unless that is still on its way: a row per node, never two."""
        if self._saving:
            return
        heard, self._dirty = [*self._dirty], {}
        for start in range(0, len(heard), SAVED_AT_ONCE):
            part = heard[start : start + SAVED_AT_ONCE]
            turn = Turn()
            turn.rows = [
                NodeSeenRow(node_id, seen.boot_id, seen.us)
                for node_id in part
                if (seen := self._seen.get(node_id)) is not None and seen.us
            ]
            if turn.rows:
                self._saving += 1
                self._engine.writer.submit(Pending(turn, partial(self._saved, part)))

    def _saved(self, heard: list[str], error: TurnFailed | None) -> None:
        self._saving -= 1
        if error is not None:
            self._dirty |= dict.fromkeys(heard)

    def _look(self, now: float) -> Iterator[None]:
        """Find who has fallen silent; others may have the loop after each."""
        sees = self._linked() and now - self._canary <= self._suspect_s
        if not sees:
            self._blind = True
            return
        if self._blind:
            self._blind, self._sight_since = False, now
        self._tell_boots(now)
        if now >= self._again_at:
            self._again_at, refused, self._refused = now + AGAIN_S, self._refused, set()
            for node_id in sorted(refused):
                self._tell(node_id)
                yield
        while self._linked() and self._heap and self._heap[0][0] <= now:
            _, node_id = heapq.heappop(self._heap)
            seen = self._seen.get(node_id)
            if seen is None or seen.silent:
                continue
            due = max(seen.at, self._sight_since) + self._suspect_s
            if due > now:
                heapq.heappush(self._heap, (due, node_id))
                continue
            seen.silent = True
            self._tell(node_id)
            yield

    def _credit(self, lost: float) -> None:
        """The loop was late: nobody's silence is counted for that time."""
        self._sight_since = max(self._sight_since, self._mono() - self._suspect_s + lost)
        self._canary += lost
        for seen in self._seen.values():
            if not seen.silent:
                seen.at += lost
