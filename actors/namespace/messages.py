"""What callers and operators may ask of a namespace."""

from typing import Annotated, ClassVar

from msgspec import Meta

from actors.fields import MAX_QUOTA, AccountId, NamespaceId, NodeId, ProviderId
from amends.domain.api import Asked, Command, Reason, Request

Quota = Annotated[Annotated[int, Meta(ge=0, le=MAX_QUOTA)], Asked("bytes", "--quota", example=107_374_182_400)]


class CreateNamespace(Request, frozen=True):
    """cmd.namespace.create; the directory itself is made by the provider's operator."""

    command: ClassVar[Command] = Command(
        subject="cmd.namespace.create", help="make a namespace known", of="namespace", by="namespace_id",
        account="account_id",
    )  # fmt: skip
    namespace_id: NamespaceId
    account_id: Annotated[AccountId, Asked("whose it is", "--account", example="acme")]
    provider_id: Annotated[ProviderId, Asked("the storage provider", "--provider", example="nfs-1")]
    quota_bytes: Quota


class SetQuota(Request, frozen=True):
    """cmd.namespace.set_quota"""

    command: ClassVar[Command] = Command(
        subject="cmd.namespace.set_quota", help="change its quota", of="namespace", by="namespace_id",
        then={"quota_bytes": 214_748_364_800, "version": 4},
    )  # fmt: skip
    namespace_id: NamespaceId
    quota_bytes: Annotated[Quota, Asked("bytes", "--quota", example=214_748_364_800)]


class ArchiveNamespace(Request, frozen=True):
    """cmd.namespace.archive"""

    command: ClassVar[Command] = Command(
        subject="cmd.namespace.archive", help="end a namespace without attachments; its data stays where it is",
        of="namespace", by="namespace_id", then={"state": "archived", "version": 9},
    )  # fmt: skip
    namespace_id: NamespaceId


class ReconcileProvider(Request, frozen=True):
    """ops.provider.reconcile: the provider is asked again to take back a grant that drifted (R11)."""

    command: ClassVar[Command] = Command(
        subject="ops.provider.reconcile", help="take back a grant that drifted", role="operator", of="namespace",
        by="namespace_id", example={"reason": "the storage host is back"},
    )  # fmt: skip
    namespace_id: NamespaceId
    node_id: Annotated[NodeId, Asked("the node of the grant", "--node", example="node-1")]
    reason: Reason
