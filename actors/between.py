"""What entities tell one another: durable messages, each in the transaction of the turn that sends it."""

from amends.domain.versions import Message


class Suspicion(Message, frozen=True):
    """An allocation found the node unfit: quarantine it for that reason."""

    reason: str


class SetupFailed(Message, frozen=True):
    """The set-up of an allocation failed on this node, through no word of its customer's (R02)."""

    allocation_id: str
    code: str


class SetupWorked(Message, frozen=True):
    """A set-up ended well on a node that had failed before."""


class DebtSettled(Message, frozen=True):
    """An allocation no longer owes this node a cleanup."""


class Offer(Message, frozen=True):
    """The pool offers an assignable node at its present epoch."""

    node_id: str
    node_epoch: int


class NodeMoved(Message, frozen=True):
    """The node of this allocation has another address or host key, by an operator's word: its customer must know."""

    host: str
    port: int
    host_key: str


class CleanupLost(Message, frozen=True):
    """The node was retired for good: what it owed is settled as lost, by an operator's word."""

    reason: str
