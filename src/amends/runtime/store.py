"""Actors in memory: per kind a dictionary from id to state, kept as the stored bytes but for those touched last.

A terminal actor that owes nothing is not kept; it is read back if a message comes for it. A body that cannot be made
out (a hand's edit, a later release's) is one entity's trouble: it stands apart as damaged, and the rest goes on.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec

from amends.domain.kinds import ActorKind, ActorState
from amends.domain.versions import brought_up, refuse_later, version_in
from amends.values.canonical import UNREADABLE

MOST_DECODED = 10_000  # a decoded state takes some ten times what its bytes do
_encode = msgspec.json.Encoder().encode


class Damaged(Protocol):
    """Hears, once, of an entity whose stored state cannot be made out."""

    def __call__(self, kind: str, identifier: str, why: str, /) -> None:
        """It is held from now on."""
        ...


def _told_nobody(kind: str, identifier: str, why: str) -> None:
    """A store that is read apart from an engine."""


class Store:
    """The committed states of one process; at most `most_decoded` of them are kept decoded."""

    def __init__(
        self, kinds: Mapping[str, ActorKind], damaged: Damaged = _told_nobody, most_decoded: int = MOST_DECODED
    ) -> None:
        self._kinds, self._tell_damaged = kinds, damaged
        self._decoders = {name: msgspec.json.Decoder(kind.state_type) for name, kind in kinds.items()}
        self._states: dict[str, dict[str, Any]] = {name: {} for name in kinds}
        self._decoded: dict[tuple[str, str], bytes | None] = {}  # the oldest first; of what, None once it has changed
        self._most = most_decoded
        self._damaged: dict[tuple[str, str], str] = {}

    def load(self, kind: str, identifier: str, body: bytes) -> None:
        """Take in a stored actor without decoding it."""
        self._states[kind][identifier] = body

    def get(self, kind: str, identifier: str) -> ActorState | None:
        """The committed state, if it is in memory."""
        found = self._states[kind].get(identifier)
        if type(found) is not bytes:
            return found
        state = self.decoded(kind, identifier, found)
        if state is None:
            del self._states[kind][identifier]
        else:
            self._keep(kind, identifier, state, found)
        return state

    def _keep(self, kind: str, identifier: str, state: ActorState, body: bytes | None) -> None:
        """Keep a state decoded; the one that has been so for longest falls back to its bytes."""
        self._states[kind][identifier] = state
        self._decoded.pop((kind, identifier), None)
        self._decoded[kind, identifier] = body
        if len(self._decoded) > self._most:
            oldest = next(iter(self._decoded))
            kind, identifier = oldest
            self._states[kind][identifier] = self._decoded.pop(oldest) or _encode(self._states[kind][identifier])

    def decoded(self, kind: str, identifier: str, body: bytes) -> ActorState | None:
        """The state that a stored body says; None, and the entity is damaged, when it says none of this kind's."""
        key = (kind, identifier)
        try:
            state = self._newest(kind, identifier, body)
            if state.state not in self._kinds[kind].states:
                raise msgspec.ValidationError(f"there is no state {state.state!r}")
        except UNREADABLE as error:
            known, self._damaged[key] = self._damaged.get(key), str(error)
            if known is None:
                self._tell_damaged(kind, identifier, str(error))
            return None
        self._damaged.pop(key, None)
        return state

    def _newest(self, name: str, identifier: str, body: bytes) -> ActorState:
        """The state in this release's shape; raises `ValidationError` for what cannot be brought into it."""
        kind = self._kinds[name]
        if kind.upgrades:  # other shapes may not be readable as this one
            version = version_in(body)
            if version != kind.v:
                made = brought_up(msgspec.json.decode(body), version, kind.upgrades, identifier)
                return msgspec.convert({**made, "v": kind.v}, kind.state_type)
        found: ActorState = self._decoders[name].decode(body)
        refuse_later(found.v, kind.v)
        return found

    def damage(self, kind: str, identifier: str) -> str:
        """Why the entity's stored state cannot be made out, "" if it can."""
        return self._damaged.get((kind, identifier), "")

    def put(self, kind: str, identifier: str, state: ActorState) -> None:
        """Take in a newly committed state; one that is over and owes nothing is let go."""
        if self._kinds[kind].is_live(state):
            self._keep(kind, identifier, state, None)
        else:
            self._states[kind].pop(identifier, None)
            self._decoded.pop((kind, identifier), None)

    def items(self, kind: str) -> Iterator[tuple[str, ActorState]]:
        """All of a kind in memory; they stay as they are kept."""
        for identifier, found in list(self._states[kind].items()):
            state = self.decoded(kind, identifier, found) if type(found) is bytes else found
            if state is not None:
                yield identifier, state

    def counts(self) -> dict[str, int]:
        """How many of each kind are in memory."""
        return {kind: len(states) for kind, states in self._states.items()}
