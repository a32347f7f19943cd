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


# --- storage -------------------------------------------------------------------------------------------------------


class Work(Struct, frozen=True, omit_defaults=True):
    """The action of a run that some work elsewhere belongs to: its id, and where the work's spans hang."""

    action_id: str = ""
    trace_id: str = ""
    span_id: str = ""


class UseGrant(Message, frozen=True):
    """An attachment asks for access of its node to its namespace."""

    attachment_id: str
    allocation_id: str
    namespace_id: str
    provider_id: str
    node_id: str
    node_epoch: int
    mode: str


class LeaveGrant(Message, frozen=True):
    """An attachment has no use for it any more. `fence`: the node is lost, access ends whoever else has it."""

    attachment_id: str
    work: Work = Work()
    fence: bool = False
    again: bool = False


class GrantReady(Message, frozen=True):
    """The node has access, and the provider has said so when it was asked again."""

    grant_id: str
    source: dict[str, Any]


class GrantRefused(Message, frozen=True):
    """Not asked for at all: these checks fail by now (R10); none named: look again."""

    codes: list[str]


class GrantTried(Message, frozen=True):
    """A try at the provider has failed; `over`: it was the last one."""

    grant_id: str
    name: str
    attempt: int
    step_id: str
    code: str
    message: str
    trace_id: str
    span_id: str
    started_us: int
    ended_us: int
    over: bool = False


class RevokeTried(Message, frozen=True):
    """A try to take access back has failed, and another one follows; `action_id`: of the work that asked for it."""

    node_id: str
    grant_id: str
    attempt: int
    code: str
    failure_id: str
    trace_id: str
    span_id: str
    started_us: int
    ended_us: int
    action_id: str = ""


class GrantGone(Message, frozen=True):
    """What leaving came to: `revoked`, `shared` (others have it), `none` (there was nothing), or `failed`.

    `grant_id` and `made_by` (`<trace id>:<span id>` of the try that made it) where one was revoked, or was to be;
    `action_id`: of the work that asked for it; `tries`: how many it took.
    """

    result: str
    grant_id: str = ""
    made_by: str = ""
    duration_ms: int = 0
    started_us: int = 0
    ended_us: int = 0
    code: str = ""
    action_id: str = ""
    tries: int = 0


class Drifted(Message, frozen=True):
    """A grant cannot be taken back: the pair of namespace and node is blocked.

    An attachment that it concerns says so too: `comp_id` is its record of the failure, `case_id` its case of that kind.
    """

    node_id: str
    grant_id: str
    attachment_id: str = ""
    comp_id: str = ""
    case_kind: str = ""
    case_id: str = ""


class ReconcileGrant(Message, frozen=True):
    """An operator has the provider asked again to take back what drifted."""

    work: Work


class GrantReconciled(Message, frozen=True):
    """What that came to, and for which grant."""

    node_id: str
    gone: GrantGone


class DriftTried(Message, frozen=True):
    """An operator has the drifted grant taken back (`retrying`), or that was in vain."""

    retrying: bool
    reason: str


class DriftCleared(Message, frozen=True):
    """The grant that this attachment could not give back is gone."""

    reason: str


class LeaveNode(Message, frozen=True):
    """The rental ends: `release`, or `node_lost`; `quota`: the policy says so.

    `failure_id`: of what it follows from, `hop` steps away from where it began.
    """

    cause: str
    failure_id: str = ""
    hop: int = 0


class AttachmentSettled(Message, frozen=True):
    """An attachment of this rental has come to an end, or to `detach_failed`."""

    attachment_id: str
    state: str


class MountLeft(Message, frozen=True):
    """An attachment ended with the loss of this node, and its mount may be there still; `made_by`: its span."""

    attachment_id: str
    made_by: str


class NodeSuspect(Message, frozen=True):
    """The node of this attachment is silent: what is being mounted there is not waited for."""


class LateMount(Message, frozen=True):
    """The agent says that a mount is done which nobody waits for any more (R12)."""

    task_id: str


class MountGivenUp(Message, frozen=True):
    """The node that owes this attachment's unmount is retired: nobody will ever do it."""

    reason: str
