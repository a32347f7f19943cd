"""Which grants of a namespace there are, and which nodes may write to it by them.

An index over committed grants, rebuilt at a start. It knows no attachment: a grant may outlive the one that wanted it.
"""

from collections.abc import Iterable

from actors.grant.state import GrantState
from amends.runtime.engine import Engine
from amends.turn.decision import Decision
from supervisors.indexing import all_of

Grant = tuple[str, str, str]  # grant, node, state


class WritingNodes:
    """Follows committed turns."""

    def __init__(self) -> None:
        self._nodes: dict[str, set[str]] = {}  # namespace → nodes
        self._grants: dict[str, dict[str, list[Grant]]] = {}  # namespace → node → grants
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Follow this engine's committed turns."""
        self._engine = engine
        engine.listeners.append(self.follow)

    async def load(self) -> None:
        """Take in what stands."""
        assert self._engine is not None
        async for _, state in all_of(self._engine, "grant"):
            self._take_in(state)

    def of(self, namespace_id: str) -> list[str]:
        """The nodes with a read-write grant that is asked for, stands, is being taken back, or could not be."""
        return sorted(self._nodes.get(namespace_id, ()))

    def grants_of(self, namespace_id: str) -> list[Grant]:
        """All that have not ended."""
        return [each for of_node in self._grants.get(namespace_id, {}).values() for each in of_node]

    def load_nodes(self, namespace_id: str, nodes: Iterable[str]) -> None:
        """Take in what another index knows of a namespace."""
        self._nodes[namespace_id] = set(nodes)

    def follow(self, decision: Decision) -> None:
        """A turn has committed."""
        if decision.kind.name == "grant":
            self._take_in(decision.state)

    def _take_in(self, state: object) -> None:
        if not isinstance(state, GrantState):
            return
        by_node = self._grants.setdefault(state.namespace_id, {})
        if state.held:
            by_node[state.node_id] = [(held.grant_id, state.node_id, held.state) for held in state.held]
        else:
            by_node.pop(state.node_id, None)
        if not by_node:
            del self._grants[state.namespace_id]
        nodes = self._nodes.setdefault(state.namespace_id, set())
        if any(held.mode == "rw" for held in state.held):
            nodes.add(state.node_id)
        else:
            nodes.discard(state.node_id)
        if not nodes:
            del self._nodes[state.namespace_id]
