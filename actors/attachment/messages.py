"""What callers and operators may ask of an attachment."""

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Struct

from actors.fields import AllocationId, AttachmentId, MountPath, NamespaceId
from amends.domain.api import Asked, Command, Reason, Request

_BEGUN: dict[str, Any] = {
    "state": "requested", "reason": None, "attempt_id": None, "grant_id": None, "version": 1,
}  # fmt: skip
_LEAVING: dict[str, Any] = {"state": "detaching", "version": 8}


class Attach(Request, frozen=True):
    """cmd.attachment.attach; who asks must speak for the rental's account."""

    command: ClassVar[Command] = Command(
        subject="cmd.attachment.attach", help="mount a namespace on a rental's node", of="attachment", mints="attach",
        then=_BEGUN, checks=("mount_path",), found="rental",
    )  # fmt: skip
    allocation_id: Annotated[AllocationId, Asked("the rental", "--allocation", example="{allocation}")]
    namespace_id: Annotated[NamespaceId, Asked("the namespace", "--namespace", example="acme-data")]
    mode: Annotated[Literal["ro", "rw"], Asked("ro or rw", "--mode", example="rw")]
    mount_path: Annotated[MountPath, Asked("where on the node", "--path", example="/mnt/data")]


class AttachTo(Struct, frozen=True):
    """What an `Attach` becomes: with the account and the node of its rental, which may have ended."""

    asked: Attach
    account_id: str
    node_id: str | None


class Detach(Request, frozen=True):
    """cmd.attachment.detach"""

    command: ClassVar[Command] = Command(
        subject="cmd.attachment.detach", help="unmount it and give its access back", of="attachment",
        by="attachment_id", then=_LEAVING,
    )  # fmt: skip
    attachment_id: AttachmentId


class RetryDetach(Request, frozen=True):
    """ops.attachment.retry_detach"""

    command: ClassVar[Command] = Command(
        subject="ops.attachment.retry_detach", help="try a detach again that was given up", role="operator",
        of="attachment", by="attachment_id", then=_LEAVING, example={"reason": "the process is gone"},
    )  # fmt: skip
    attachment_id: AttachmentId
    reason: Reason


class AcknowledgeNodeLost(Request, frozen=True):
    """ops.attachment.acknowledge_node_lost: nothing is mounted any more, for the node is gone."""

    command: ClassVar[Command] = Command(
        subject="ops.attachment.acknowledge_node_lost", help="the node of a detach that was given up is gone for good",
        role="operator", of="attachment", by="attachment_id", then=_LEAVING, example={"reason": "the machine burned"},
    )  # fmt: skip
    attachment_id: AttachmentId
    reason: Reason
