"""The attachment's state, its references, and the shape others see of it."""

from typing import Any

from msgspec import Struct

from actors.between import Work
from amends.domain.kinds import ActorState

HOLDING = ("validated", "granted", "mounting", "attached", "detaching", "detach_failed")  # something may be there


class Mount(Struct, frozen=True, omit_defaults=True):
    """The mount on its node. `made_by`: the span of the task that may have made it; `source` is what the grant said.

    `late`: it was mounted after it had been given up. `holders` are what an agent named when it could not unmount.
    `debt_id`: of the mount that the node owes.
    """

    source: dict[str, Any] = {}
    made_by: str = ""
    unmounted: bool = False
    late: bool = False
    tries: int = 0
    holders: list[str] = []
    debt_id: str = ""
    debt_since_us: int = 0


class Undo(Struct, frozen=True, omit_defaults=True):
    """What is being undone before it has `failed` with that `code`; `row`: the run's."""

    code: str = ""
    row: str = ""


class Leaving(Struct, frozen=True, omit_defaults=True):
    """Why it is detached: `detach`, `release`, `node_lost`, `quota`, `retry`, `acknowledged`, `reconciled`.

    `code`: of what failed at last where a failed mount goes on as that. `key`: the run that it belongs to, "" for none;
    `earlier`: the run that had given up; `work`: the action of the grant's end; `superseded`: the record that an
    operator's run settles; `kept`: that of access not given back. `fence`: the action of access that is taken back from
    a lost node while the mount stays given up, `fenced`: it was.
    """

    cause: str = ""
    code: str = ""
    key: str = ""
    earlier: str = ""
    work: Work = Work()
    superseded: str = ""
    kept: str = ""
    fence: Work = Work()
    fenced: bool = False


class Attachment(ActorState, frozen=True, kw_only=True):
    """One try to have a namespace on the node of a rental; a new try is a new one.

    `rw_holder`: the namespace, while it alone may write there: the database lets one of them stand.
    """

    allocation_id: str
    account_id: str
    namespace_id: str
    provider_id: str
    mode: str
    mount_path: str
    requested_us: int
    node_id: str | None = None
    node_epoch: int = 0
    reason: str | None = None
    attempt_id: str | None = None
    grant_id: str | None = None
    rw_holder: str | None = None
    mount: Mount = Mount()
    undo: Undo = Undo()
    leaving: Leaving = Leaving()


def mount_ref(s: Attachment, attachment_id: str) -> str:
    """target_ref of its mount."""
    return f"node:{s.node_id}/mount:{attachment_id}"


def grant_ref(s: Attachment, grant_id: str = "") -> str:
    """target_ref of its grant."""
    return f"provider:{s.provider_id}/grant:{grant_id or s.grant_id}"


def mount_args(s: Attachment, attachment_id: str) -> dict[str, Any]:
    """What a task on the mount needs."""
    return {
        "node_id": s.node_id, "attachment_id": attachment_id, "attempt_id": s.attempt_id,
        "namespace_id": s.namespace_id, "mode": s.mode, "mount_path": s.mount_path, "source": s.mount.source,
        "node_epoch": s.node_epoch,
    }  # fmt: skip


def view_attachment(s: Attachment, identifier: str, d: Any) -> dict[str, Any]:
    """Row of `public_v1.attachment`."""
    return {
        "attachment_id": identifier, "allocation_id": s.allocation_id, "namespace_id": s.namespace_id,
        "node_id": s.node_id, "mode": s.mode, "mount_path": s.mount_path, "state": s.state, "reason": s.reason,
        "attempt_id": s.attempt_id, "grant_id": s.grant_id, "trace_id": s.trace_id or None, "version": s.version,
    }  # fmt: skip
