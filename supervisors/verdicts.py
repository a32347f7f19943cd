"""Verdicts: which silent nodes are told that they are lost, and when (R08).

A node is due once it has been silent for `offline_after_ms` under a seeing detector, and proved once enough of its SSH
probes have failed since. What is both waits for its domain's guard and for a token. The node's own turn decides, and
looks again whether it was heard.
"""

from collections.abc import Callable, Iterator
from math import inf
from typing import Protocol

from actors.detector.messages import FLEET, MassOver, MassSilence
from actors.node.messages import Verdict
from actors.node.r08_offline import SILENCED
from actors.node.state import Node
from amends.runtime.engine import Engine
from amends.turn.messages import Envelope
from supervisors.guards import Guards

AGAIN_S = 1.0  # after which a node that was told, and is still silent, may be told anew


class LastBeat(Protocol):
    """Answers when a node was last heard."""

    def __call__(self, node_id: str) -> int:
        """In microseconds; 0 if never."""
        ...


class Verdicts:
    """Told by the detector who is due and by committed turns who is proved. `monotonic` in seconds."""

    def __init__(self, engine: Engine, guards: Guards, last_beat: LastBeat, monotonic: Callable[[], float]) -> None:
        self._engine, self._guards, self._last_beat, self._mono = engine, guards, last_beat, monotonic
        self._enough = engine.context.limits("min_failed_probes")
        self._due: dict[str, str] = {}  # node → the domain under which it was sorted
        self._ready: dict[str, dict[str, float]] = {}  # domain → due and proved, and when each may be told
        self._confirmed: dict[str, float] = {}  # the same of those that an operator has confirmed
        self.passed = 0

    def due(self, node_id: str) -> None:
        """It has been silent for long enough."""
        self._due[node_id] = self._guards.domain_of(node_id)
        self._sort(node_id)

    def follow(self, node_id: str, node: Node) -> None:
        """Its committed state has changed."""
        if node_id in self._due:
            self._sort(node_id)

    def heard(self, node_id: str) -> None:
        """It is heard, or gone: nothing is to be judged."""
        domain = self._due.pop(node_id, None)
        if domain is not None:
            self._drop(node_id, domain)

    def _drop(self, node_id: str, domain: str) -> None:
        self._ready.get(domain, {}).pop(node_id, None)
        self._confirmed.pop(node_id, None)

    def begin_again(self) -> list[str]:
        """The detector was blind: nobody is due any more; returns who was."""
        due = list(self._due)
        self._due.clear()
        self._ready.clear()
        self._confirmed.clear()
        return due

    def _sort(self, node_id: str) -> None:
        node = self._engine.store.get("node", node_id)
        known, domain = self._due[node_id], self._guards.domain_of(node_id)
        self._due[node_id] = domain
        proved = isinstance(node, Node) and node.state in SILENCED and node.silence.failed >= self._enough
        if not isinstance(node, Node) or not proved or node.paused:  # a paused one would only keep the word for later
            self._drop(node_id, known)
            return
        fits = self._confirmed if node.silence.confirmed else self._ready.setdefault(domain, {})
        if node_id not in fits:
            self._drop(node_id, known)
            fits[node_id] = 0.0

    def look(self, now: float, sees: Callable[[], bool]) -> Iterator[None]:
        """Pass what may be passed while the detector sees; others may have the loop after each."""
        for domain, counts in self._guards.look(now):
            gone = counts.silent + len(counts.lost)
            message = MassSilence(domain, gone, counts.total) if counts.held else MassOver(domain)
            self._engine.tell("detector", FLEET, Envelope(message, priority=True))
        groups = [self._confirmed, *(self._ready[each] for each in list(self._ready) if not self._guards.holds(each))]
        for group in groups:
            for node_id in [each for each, not_before in group.items() if not_before <= now]:
                if node_id not in group:  # it was heard meanwhile
                    continue
                if not sees() or not (group is self._confirmed or self._guards.token(now)):
                    return
                self._pass(node_id, group)
                yield

    def _pass(self, node_id: str, group: dict[str, float]) -> None:
        """It leaves its group with the node's turn; if that did not lose it, it is told again later."""

        def taken(_: bool) -> None:
            if node_id in group:
                group[node_id] = self._mono() + AGAIN_S

        group[node_id] = inf
        self.passed += 1
        verdict = Verdict(self._last_beat(node_id))
        self._engine.tell("node", node_id, Envelope(verdict, priority=True, done=taken))
