"""Actors in memory: per kind a dictionary from id to state, kept as the stored bytes until first touched.

A terminal actor that owes nothing is not kept; it is read back if a message comes for it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from amends.runtime.domain import ActorKind, ActorState


class Store:
    """The committed states of one process."""

    def __init__(self, kinds: Mapping[str, ActorKind]) -> None:
        self._kinds = kinds
        self._decoders = {name: msgspec.json.Decoder(kind.state_type) for name, kind in kinds.items()}
        self._states: dict[str, dict[str, Any]] = {name: {} for name in kinds}

    def load(self, kind: str, identifier: str, body: bytes) -> None:
        """Take in a stored actor without decoding it."""
        self._states[kind][identifier] = body

    def get(self, kind: str, identifier: str) -> ActorState | None:
        """The committed state, if it is in memory."""
        found = self._states[kind].get(identifier)
        if type(found) is bytes:
            found = self._states[kind][identifier] = self._decoders[kind].decode(found)
        return found

    def put(self, kind: str, identifier: str, state: ActorState) -> None:
        """Take in a newly committed state; one that is over and owes nothing is let go."""
        if self.is_over(kind, state):
            self._states[kind].pop(identifier, None)
        else:
            self._states[kind][identifier] = state

    def is_over(self, kind: str, state: ActorState) -> bool:
        """Whether the actor is terminal and owes nothing: no timer, no run, no case, nothing pending."""
        return self._kinds[kind].states[state.state] == "end" and not (
            state.timers or state.runs or state.cases or state.owing
        )

    def items(self, kind: str) -> Iterator[tuple[str, ActorState]]:
        """All of a kind in memory, decoded."""
        for identifier in list(self._states[kind]):
            state = self.get(kind, identifier)
            if state is not None:
                yield identifier, state

    def counts(self) -> dict[str, int]:
        """How many of each kind are in memory."""
        return {kind: len(states) for kind, states in self._states.items()}
