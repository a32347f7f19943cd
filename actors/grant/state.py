"""The state of a node's access to a namespace."""

from typing import Any, Literal

from msgspec import Struct

from actors.between import Work
from amends.domain.kinds import ActorState

Standing = Literal["intended", "granted", "revoking", "drift"]
COVERS = {"ro": ("ro", "rw"), "rw": ("rw",)}  # wanted → grants that do


class Held(Struct, frozen=True, omit_defaults=True):
    """One grant at the provider; `over`: it has no more tries.

    `made_by`: `<trace id>:<span id>` of the try that may have made it; `address`: of the node when it was asked for.
    """

    grant_id: str
    mode: str
    state: Standing
    source: dict[str, Any] = {}
    tries: int = 0
    made_by: str = ""
    over: bool = False
    address: str = ""


class GrantState(ActorState, frozen=True, kw_only=True):
    """All of one pair of namespace and node. `users`: attachment → mode; `waiting`: those of them without a grant yet.

    `leaving`: who waits for the end, and the action that the work belongs to; "" is the namespace, for an operator.
    `flagged`: the namespace was told of a drift, and hears of its end.
    """

    namespace_id: str
    node_id: str
    provider_id: str
    held: tuple[Held, ...] = ()
    users: dict[str, str] = {}
    waiting: tuple[str, ...] = ()
    leaving: dict[str, Work] = {}
    flagged: bool = False


def grant_of(namespace_id: str, node_id: str) -> str:
    """The actor of a pair; neither name has a dot."""
    return f"{namespace_id}.{node_id}"
