"""What entities tell one another: durable messages, each in the transaction of the turn that sends it."""

from typing import Any

from msgspec import Struct

from amends.domain.versions import Message

RESTORED_BY = 2**32  # by how much a restored database raises an epoch: above all that a lost history gave


def same_life(epoch: int, other: int) -> bool:
    """Whether two epochs of a node differ by restores alone: those raise it, and are no loss."""
    return epoch % RESTORED_BY == other % RESTORED_BY


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
    """An allocation no longer owes this node a cleanup.

    Of one that ended with the node's loss: the `user` that was removed, the span that had made it, and how long the
    removal took; "" for any other.
    """

    user: str = ""
    made_by: str = ""
    duration_ms: int = 0


class NodeLost(Message, frozen=True):
    """The node of this allocation is lost: by silence, or since it was rebooted (R08).

    `beat_us`: its last sign of life; `epoch`: that of the node until then; `failure_id`: the node's failure.
    """

    node_id: str
    epoch: int
    cause: str
    beat_us: int
    failure_id: str


class LossConfirmed(Message, frozen=True):
    """An operator confirms that a node which is held in suspect is lost, whatever the guards say."""

    reason: str


class LedgerPosted(Message, frozen=True):
    """Entries of the account's ledger that are worth an event: all but the windows of a rental that goes on."""

    entries: list[dict[str, Any]]
    recovery_trace_id: str = ""


class BalanceMoved(Struct, frozen=True):
    """The account's balance has crossed zero."""


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
