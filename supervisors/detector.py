"""The detector: when each node was last heard, and who has fallen silent, for how long. No actor, no timer per node.

A table of last-seen times and one lazily re-armed heap. A blind detector judges nobody: while the link to NATS is
down, or the canary has not come back through the broker, every deadline waits and starts again in full with sight;
time that the event loop lost is credited to all. Who has been silent for `offline_after_ms` is a matter of `verdicts`.
A node's actor has one word of the detector's before it at a time, however often the world changes meanwhile; the next
one says how it is then.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator
from math import inf

from actors.node.messages import HeartbeatSeen, Silent
from actors.node.state import Node
from amends.runtime.engine import Engine
from amends.runtime.slices import Slices
from amends.turn.decision import Decision
from amends.turn.messages import Envelope
from supervisors.boots import BootIds
from supervisors.checkpoint import Checkpoint
from supervisors.guards import Guards
from supervisors.last_seen import LastSeen, Seen
from supervisors.verdicts import Verdicts

TICK_S, STALL_S = 0.1, 0.1  # a verdict is late by a tick at most, and by what its commit takes
AGAIN_S = 1.0  # after which a node that took no word (it is held) is told anew


class Detector:
    """Turns the absence and return of heartbeats into messages to node actors. `monotonic` in seconds.

    It alone writes `last_seen`. Follows committed turns.
    """

    def __init__(
        self, engine: Engine, last_seen: LastSeen, guards: Guards, *, monotonic: Callable[[], float],
        linked: Callable[[], bool], domain_of: Callable[[Node], str] = lambda node: "",
    ) -> None:  # fmt: skip
        self._engine, self._clock, self._linked, self._domain_of = engine, monotonic, linked, domain_of
        self._lost_s = 0.0  # by the event loop, since the start
        self._suspect_s = engine.context.limits("suspect_after_ms") / 1000
        self._offline_s = engine.context.limits("offline_after_ms") / 1000
        self._beat_s = engine.context.limits("heartbeat_interval_ms") / 1000
        self._guards = guards
        self._verdicts = Verdicts(engine, guards, last_seen.last_seen_us, self._mono)
        self._before: dict[str, int] = {}  # of nodes with a new boot id, the last beat with the one they had
        self._boots = BootIds(engine.context.limits("flap_window_ms") / 1000)
        self._seen = last_seen.nodes
        self.checkpoint = Checkpoint(engine, last_seen)
        self._known: set[str] = set()
        self._heap: list[tuple[float, str]] = []
        self._told: set[str] = set()  # nodes that have yet to take in what they were told
        self._owed: dict[str, str] = {}  # of those, who is to be told more: a rival's boot id, or ""
        self._refused: set[str] = set()
        self._again_at = self._canary = self._sight_since = self._mono()
        self._blind = False
        self.unknown = 0

    # --- what is heard -------------------------------------------------------------------------------

    def heard_all(self, beats: Iterable[tuple[str, str]]) -> None:
        """Heartbeats have arrived, now: (node, boot id). Nearly all say that nothing has changed."""
        now, us, known, usual = self._mono(), self._engine.now_us(), self._seen.get, list[str]()
        for node_id, boot_id in beats:
            seen = known(node_id)
            if seen is None or seen.silent or seen.boot_id != boot_id:
                self.heard(node_id, boot_id)
            else:
                seen.at, seen.us = now, us
                usual.append(node_id)
        self.checkpoint.heard(usual)

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
            self._arm(node_id, now + self._suspect_s)
        else:
            if seen.silent:
                self._is_back(node_id, now)
            moved = seen.boot_id not in ("", boot_id)
            if moved:
                self._before.setdefault(node_id, seen.us)
                self._boots.changed(node_id, seen.boot_id, boot_id, now)
            again = again or not seen.boot_id
            seen.boot_id, seen.at, seen.us, seen.silent = boot_id, now, us, False
        self.checkpoint.heard((node_id,))
        if moved:
            self._tell_boots(now, node_id)
        elif again:
            self._tell(node_id)

    def _is_back(self, node_id: str, now: float) -> None:
        self._arm(node_id, now + self._suspect_s)
        self._guards.heard(node_id)
        self._verdicts.heard(node_id)

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
        before_us = self._before.get(node_id, 0)
        message = Silent(seen.us) if seen.silent else HeartbeatSeen(seen.boot_id, seen.us, rival, before_us)
        env = Envelope(message, priority=True, done=lambda taken: self._taken(node_id, taken, before_us))
        self._engine.tell("node", node_id, env)

    def _taken(self, node_id: str, taken: bool, before_us: int) -> None:
        self._told.discard(node_id)
        if not taken:
            self._refused.add(node_id)
            return
        rival = self._owed.pop(node_id, None)
        if before_us and self._before.get(node_id) == before_us:  # else it was told of something older
            del self._before[node_id]
        if rival is not None:
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
        if not isinstance(before, Node) or before.state != node.state or before.labels != node.labels:
            self.on_node(decision.id, node)
            if node.state == "offline":
                self._guards.lost(decision.id, self._mono())
        self._verdicts.follow(decision.id, node)

    def on_node(self, node_id: str, node: Node) -> None:
        """A node's state has changed, or it was loaded. Whoever may be rented is watched, however it came to that."""
        if node.state in ("registered", "retired"):
            self._guards.forget(node_id)
        else:
            self._guards.watch(node_id, self._domain_of(node))
        if node.state == "retired":
            self._known.discard(node_id)
            self.checkpoint.forget(node_id)
            self._seen.pop(node_id, None)
            self._boots.forget(node_id)
            self._verdicts.heard(node_id)
            return
        self._known.add(node_id)
        self.checkpoint.know(node_id)
        if node.state == "offline":
            self._is_offline(node_id, node)
        elif node.state != "registered":
            self._watch(node_id, node)

    def _is_offline(self, node_id: str, node: Node) -> None:
        """It is told of its next heartbeat; its silence is nobody's concern."""
        self._verdicts.heard(node_id)
        seen = self._seen.get(node_id)
        if seen is None:
            self._seen[node_id] = Seen(node.boot_id or "", self._mono(), node.last_heartbeat_us or 0, silent=True)
        else:
            seen.silent = True

    def _watch(self, node_id: str, node: Node) -> None:
        now, seen, silent = self._mono(), self._seen.get(node_id), bool(node.silence.last_us)
        if seen is None:  # not heard since the start: a full deadline from now on
            self._seen[node_id] = Seen(node.boot_id or "", now, node.last_heartbeat_us or 0, silent=silent)
            self._arm(node_id, now + (self._offline_s if silent else self._suspect_s))
            if silent:
                self._guards.silent(node_id)
        elif seen.silent and not silent:  # its new state does not say so: it is told at the next look
            seen.silent = False
            self._guards.heard(node_id)
            self._arm(node_id, now)

    def _mono(self) -> float:
        """The detector's time, in seconds: that which the event loop lost has not passed."""
        return self._clock() - self._lost_s

    # --- watching ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch until cancelled."""
        tick = max(0.02, min(self._suspect_s / 10, TICK_S))
        last = self._mono()
        while True:
            await asyncio.sleep(tick)
            now = self._mono()
            lost = now - last - tick
            if lost > STALL_S:
                self._credit(lost)
                now -= lost
            last = now
            slices = Slices(self._engine.monotonic_us)
            for _ in self._look(now):
                await slices.shared()
                await self._engine.writer.room()

    def _look(self, now: float) -> Iterator[None]:
        """Find who has fallen silent; others may have the loop after each."""
        if not self._sees():
            self._blind = True
            return
        if self._blind:
            self._blind, self._sight_since = False, now
            for node_id in self._verdicts.begin_again():
                self._arm(node_id, now + self._offline_s)
        self._tell_boots(now)
        if now >= self._again_at:
            self._again_at, refused, self._refused = now + AGAIN_S, self._refused, set()
            for node_id in sorted(refused):
                self._tell(node_id, self._owed.pop(node_id, ""))
                yield
        heap = self._heap
        while heap and heap[0][0] <= now:
            due, node_id = heap[0]
            seen = self._seen.get(node_id)
            if seen is None or seen.due != due:  # it has been re-armed since
                heapq.heappop(heap)
            elif (later := self._due(seen)) > now:  # heard meanwhile, as nearly all are
                seen.due = later
                heapq.heapreplace(heap, (later, node_id))
            else:
                heapq.heappop(heap)
                seen.due = inf
                if self._has_fallen_silent(node_id, seen):
                    yield
                    if not self._linked():
                        break
        yield from self._verdicts.look(now, self._sees)

    def _sees(self) -> bool:
        """Whether heartbeats would reach us now: the link is up, and our own has come back."""
        return self._linked() and self._mono() - self._canary <= self._suspect_s

    def _arm(self, node_id: str, due: float) -> None:
        """It is looked at then, or before: one entry of a node counts."""
        seen = self._seen[node_id]
        if due < seen.due:
            seen.due = due
            heapq.heappush(self._heap, (due, node_id))

    def _due(self, seen: Seen) -> float:
        """Until when it may be silent; a silent one, until a verdict is due.

        Where our own heartbeat was last back before another of the node's was due, it may be we who are deaf (A7).
        """
        since = max(seen.at, self._sight_since)
        if seen.silent:
            return since + self._offline_s
        due = since + self._suspect_s
        return due if self._canary >= since + self._beat_s else max(due, self._mono() + TICK_S)

    def _has_fallen_silent(self, node_id: str, seen: Seen) -> bool:
        """Of a node whose deadline is over: whether it is told. A silent one is due for a verdict."""
        if seen.silent:
            node = self._engine.store.get("node", node_id)
            if isinstance(node, Node) and node.state != "offline":
                self._verdicts.due(node_id)
            return False
        seen.silent = True
        self._guards.silent(node_id)
        self._tell(node_id)
        self._arm(node_id, self._due(seen))
        return True

    def _credit(self, lost: float) -> None:
        """The loop was late: nobody's silence is counted for that time."""
        self._lost_s += lost
        self._sight_since = max(self._sight_since, self._mono() - self._suspect_s + lost)
