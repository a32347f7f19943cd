"""When something was begun or ended on a node or with a namespace last: a comparison with the world waits after it.

An index over committed turns; before this runtime began everything counts as touched at its start. It keeps what may
still matter: nothing that is older than the grace.
"""

from amends.runtime.engine import Engine
from amends.turn.decision import Decision

LOOKS = ("agent.inventory", "provider.grants", "provider.usage", "ssh.probe")  # they only ask


class Touched:
    """Follows committed turns."""

    def __init__(self) -> None:
        self._at: dict[str, int] = {}  # by ref, the latest last
        self._since_us = self._grace_us = 0
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Follow this engine's committed turns."""
        self._engine, self._since_us = engine, engine.now_us()
        self._grace_us = engine.context.limits.us("world_grace_ms")
        engine.listeners.append(self.follow)

    def last_us(self, ref: str) -> int:
        """Of a `node:…` or `namespace:…`."""
        return max(self._since_us, self._at.get(ref, 0))

    def follow(self, decision: Decision) -> None:
        """A turn has committed; one that writes rows and no state (a window) does nothing to a node."""
        if decision.state is decision.before:
            return
        of = OF.get(decision.kind.name)
        if of is not None:
            for state in (decision.before, decision.state):
                for kind, field in of:
                    self._touch(kind, getattr(state, field, None))
        elif decision.kind.name in ("node", "namespace") and _does_something(decision):
            self._touch(decision.kind.name, decision.id)

    def _touch(self, kind: str, name: str | None) -> None:
        if not name or self._engine is None:
            return
        now_us = self._engine.now_us()
        self._at.pop(f"{kind}:{name}", None)
        self._at[f"{kind}:{name}"] = now_us
        while self._at[oldest := next(iter(self._at))] < now_us - self._grace_us:
            del self._at[oldest]


# Kinds whose turns do something to others, and the fields that name these.
OF = {
    "allocation": (("node", "node_id"),),
    "attachment": (("node", "node_id"), ("namespace", "namespace_id")),
    "grant": (("node", "node_id"), ("namespace", "namespace_id")),
}


def _does_something(decision: Decision) -> bool:
    before, state = decision.before, decision.state
    if before is None or state is None or before.state != state.state or before.epoch != state.epoch:
        return True
    return any(step.name not in LOOKS for step in decision.steps)
