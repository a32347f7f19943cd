"""Commands of operators (ops).

Written by `python -m tools.client`: change the tables that it reads, not this file.
"""

from collections.abc import Mapping, Sequence
from typing import Unpack

import msgspec

from amends_client.api.answers import (
    BillingPostWindowAnswer,
    DetectorConfirmAnswer,
    OutboxAnswer,
    OutboxRepublishAnswer,
    PaymentAssignAnswer,
    SshAddress,
    StreamsCreateAnswer,
)
from amends_client.api.inspection import (
    AuditOps,
    CaseOps,
    LedgerOps,
    MatrixOps,
    PolicyOps,
    TraceOps,
    TreeOps,
    WhatifOps,
)
from amends_client.api.kinds import (
    ACCOUNT,
    ALLOCATION,
    ATTACHMENT,
    NAMESPACE,
    NODE,
    NOTIFICATION,
    AccountState,
    AllocationState,
    AttachmentState,
    NamespaceState,
    NodeState,
)
from amends_client.api.rows import Account, Allocation, Attachment, Namespace, Node, Notification
from amends_client.calls import Calls, CommandOptions, given
from amends_client.following import Handle, handle


class PaymentOps:
    """`ops.payment`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def assign(
        self, *, payment_id: str, account_id: str, reason: str, **options: Unpack[CommandOptions]
    ) -> PaymentAssignAnswer:
        """Say whose a payment is that waits, or was refused (for operators).

        `payment_id`: the payment at Stripe; `account_id`: whose it is.
        """
        reply = await self._calls.command(
            "ops.payment.assign", given(payment_id=payment_id, account_id=account_id, reason=reason), options
        )
        return msgspec.convert(reply.data, PaymentAssignAnswer)


class NodeOps:
    """`ops.node`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def drain(self, *, node_id: str, reason: str, **options: Unpack[CommandOptions]) -> Handle[Node, NodeState]:
        """No new rentals on it (for operators).

        `node_id`: the node.
        """
        reply = await self._calls.command("ops.node.drain", given(node_id=node_id, reason=reason), options)
        return handle(self._calls, NODE, reply)

    async def undrain(self, *, node_id: str, reason: str, **options: Unpack[CommandOptions]) -> Handle[Node, NodeState]:
        """Rentals on it again (for operators).

        `node_id`: the node.
        """
        reply = await self._calls.command("ops.node.undrain", given(node_id=node_id, reason=reason), options)
        return handle(self._calls, NODE, reply)

    async def quarantine(
        self, *, node_id: str, reason: str, **options: Unpack[CommandOptions]
    ) -> Handle[Node, NodeState]:
        """Take it out of service (for operators).

        `node_id`: the node.
        """
        reply = await self._calls.command("ops.node.quarantine", given(node_id=node_id, reason=reason), options)
        return handle(self._calls, NODE, reply)

    async def return_to_service(
        self, *, node_id: str, reason: str, acknowledge_dirty: bool | None = None, **options: Unpack[CommandOptions]
    ) -> Handle[Node, NodeState]:
        """Out of quarantine, once reconciled (for operators).

        `node_id`: the node; `acknowledge_dirty`: even though it owes cleanups.
        """
        reply = await self._calls.command(
            "ops.node.return_to_service",
            given(node_id=node_id, reason=reason, acknowledge_dirty=acknowledge_dirty),
            options,
        )
        return handle(self._calls, NODE, reply)

    async def retire(
        self, *, node_id: str, reason: str, acknowledge_lost: bool | None = None, **options: Unpack[CommandOptions]
    ) -> Handle[Node, NodeState]:
        """Out of the fleet for good (for operators).

        `node_id`: the node; `acknowledge_lost`: give up the cleanups it owes.
        """
        reply = await self._calls.command(
            "ops.node.retire", given(node_id=node_id, reason=reason, acknowledge_lost=acknowledge_lost), options
        )
        return handle(self._calls, NODE, reply)

    async def update(
        self,
        *,
        node_id: str,
        reason: str,
        ssh: SshAddress | None = None,
        labels: Mapping[str, str] | None = None,
        **options: Unpack[CommandOptions],
    ) -> Handle[Node, NodeState]:
        """Another address, host key or labels (for operators).

        `node_id`: the node; `ssh.host`: where its SSH server is; `ssh.port`: its port; `ssh.host_key`: the host key it
        must show; `ssh.user`: as whom to log in, if not as [ssh].user; `labels`: a label; all labels are replaced.
        """
        reply = await self._calls.command(
            "ops.node.update", given(node_id=node_id, reason=reason, ssh=ssh, labels=labels), options
        )
        return handle(self._calls, NODE, reply)


class AllocationOps:
    """`ops.allocation`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def force_release(
        self, *, allocation_id: str, reason_code: str, reason: str, **options: Unpack[CommandOptions]
    ) -> Handle[Allocation, AllocationState]:
        """End somebody's rental (for operators).

        `allocation_id`: the allocation; `reason_code`: what the policy goes by, such as operator_request or
        platform_fault.
        """
        reply = await self._calls.command(
            "ops.allocation.force_release",
            given(allocation_id=allocation_id, reason_code=reason_code, reason=reason),
            options,
        )
        return handle(self._calls, ALLOCATION, reply)


class BillingOps:
    """`ops.billing`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def post_window(
        self,
        *,
        meter_id: str,
        window_start_us: int,
        amount_minor: int,
        delivery_id: str,
        reason: str,
        **options: Unpack[CommandOptions],
    ) -> BillingPostWindowAnswer:
        """Post the next window of a meter (for operators).

        `meter_id`: the meter; `window_start_us`: where the window starts on the grid; `amount_minor`: what it comes to,
        in minor units; `delivery_id`: the sender's own id of this delivery.
        """
        reply = await self._calls.command(
            "ops.billing.post_window",
            given(
                meter_id=meter_id,
                window_start_us=window_start_us,
                amount_minor=amount_minor,
                delivery_id=delivery_id,
                reason=reason,
            ),
            options,
        )
        return msgspec.convert(reply.data, BillingPostWindowAnswer)


class CleanupOps:
    """`ops.cleanup`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def retry(
        self, *, allocation_id: str, reason: str, **options: Unpack[CommandOptions]
    ) -> Handle[Allocation, AllocationState]:
        """Try an owed cleanup now (for operators).

        `allocation_id`: the allocation.
        """
        reply = await self._calls.command(
            "ops.cleanup.retry", given(allocation_id=allocation_id, reason=reason), options
        )
        return handle(self._calls, ALLOCATION, reply)


class AttachmentOps:
    """`ops.attachment`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def retry_detach(
        self, *, attachment_id: str, reason: str, **options: Unpack[CommandOptions]
    ) -> Handle[Attachment, AttachmentState]:
        """Try a detach again that was given up (for operators).

        `attachment_id`: the attachment.
        """
        reply = await self._calls.command(
            "ops.attachment.retry_detach", given(attachment_id=attachment_id, reason=reason), options
        )
        return handle(self._calls, ATTACHMENT, reply)

    async def acknowledge_node_lost(
        self, *, attachment_id: str, reason: str, **options: Unpack[CommandOptions]
    ) -> Handle[Attachment, AttachmentState]:
        """The node of a detach that was given up is gone for good (for operators).

        `attachment_id`: the attachment.
        """
        reply = await self._calls.command(
            "ops.attachment.acknowledge_node_lost", given(attachment_id=attachment_id, reason=reason), options
        )
        return handle(self._calls, ATTACHMENT, reply)


class ProviderOps:
    """`ops.provider`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def reconcile(
        self, *, namespace_id: str, node_id: str, reason: str, **options: Unpack[CommandOptions]
    ) -> Handle[Namespace, NamespaceState]:
        """Take back a grant that drifted (for operators).

        `namespace_id`: the namespace; `node_id`: the node of the grant.
        """
        reply = await self._calls.command(
            "ops.provider.reconcile", given(namespace_id=namespace_id, node_id=node_id, reason=reason), options
        )
        return handle(self._calls, NAMESPACE, reply)


class DetectorOps:
    """`ops.detector`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def confirm(
        self,
        *,
        reason: str,
        domain: str | None = None,
        node_ids: Sequence[str] | None = None,
        **options: Unpack[CommandOptions],
    ) -> DetectorConfirmAnswer:
        """Nodes that the guards hold in suspect are lost indeed (for operators).

        `domain`: the failure domain: a value of its label; `node_ids`: these nodes only.
        """
        reply = await self._calls.command(
            "ops.detector.confirm", given(reason=reason, domain=domain, node_ids=node_ids), options
        )
        return msgspec.convert(reply.data, DetectorConfirmAnswer)


class NotificationOps:
    """`ops.notification`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def redispatch(self, *, notification_id: str, reason: str, **options: Unpack[CommandOptions]) -> Notification:
        """Send a waiting or parked one now (for operators).

        `notification_id`: the notification.
        """
        reply = await self._calls.command(
            "ops.notification.redispatch", given(notification_id=notification_id, reason=reason), options
        )
        return NOTIFICATION.row_of((reply.data or {})["notification"])

    async def cancel(self, *, notification_id: str, reason: str, **options: Unpack[CommandOptions]) -> Notification:
        """Never send it (for operators).

        `notification_id`: the notification.
        """
        reply = await self._calls.command(
            "ops.notification.cancel", given(notification_id=notification_id, reason=reason), options
        )
        return NOTIFICATION.row_of((reply.data or {})["notification"])


class OutboxOps:
    """`ops.outbox`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def redispatch(self, *, outbox_id: str, reason: str, **options: Unpack[CommandOptions]) -> OutboxAnswer:
        """Publish a waiting or parked event now (for operators).

        `outbox_id`: the outbox row.
        """
        reply = await self._calls.command("ops.outbox.redispatch", given(outbox_id=outbox_id, reason=reason), options)
        return msgspec.convert(reply.data, OutboxAnswer)

    async def skip(self, *, outbox_id: str, reason: str, **options: Unpack[CommandOptions]) -> OutboxAnswer:
        """Never publish it (for operators).

        `outbox_id`: the outbox row.
        """
        reply = await self._calls.command("ops.outbox.skip", given(outbox_id=outbox_id, reason=reason), options)
        return msgspec.convert(reply.data, OutboxAnswer)

    async def republish(
        self, *, since_us: int, reason: str, **options: Unpack[CommandOptions]
    ) -> OutboxRepublishAnswer:
        """Publish events again that a wiped stream lost (for operators).

        `since_us`: from this time on.
        """
        reply = await self._calls.command("ops.outbox.republish", given(since_us=since_us, reason=reason), options)
        return msgspec.convert(reply.data, OutboxRepublishAnswer)


class StreamsOps:
    """`ops.streams`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(self, *, reason: str, **options: Unpack[CommandOptions]) -> StreamsCreateAnswer:
        """Make missing streams (for operators)."""
        reply = await self._calls.command("ops.streams.create", given(reason=reason), options)
        return msgspec.convert(reply.data, StreamsCreateAnswer)


class AccountOps:
    """`ops.account`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def retry_mirror(
        self, *, account_id: str, reason: str, **options: Unpack[CommandOptions]
    ) -> Handle[Account, AccountState]:
        """Send credits to Stripe again that were given up (for operators).

        `account_id`: the account.
        """
        reply = await self._calls.command(
            "ops.account.retry_mirror", given(account_id=account_id, reason=reason), options
        )
        return handle(self._calls, ACCOUNT, reply)


class Operators:
    """All that operators may ask, by what it is about."""

    def __init__(self, calls: Calls) -> None:
        self.payment = PaymentOps(calls)
        self.node = NodeOps(calls)
        self.allocation = AllocationOps(calls)
        self.billing = BillingOps(calls)
        self.cleanup = CleanupOps(calls)
        self.attachment = AttachmentOps(calls)
        self.provider = ProviderOps(calls)
        self.detector = DetectorOps(calls)
        self.notification = NotificationOps(calls)
        self.outbox = OutboxOps(calls)
        self.streams = StreamsOps(calls)
        self.case = CaseOps(calls)
        self.account = AccountOps(calls)
        self.tree = TreeOps(calls)
        self.matrix = MatrixOps(calls)
        self.audit = AuditOps(calls)
        self.policy = PolicyOps(calls)
        self.trace = TraceOps(calls)
        self.ledger = LedgerOps(calls)
        self.whatif = WhatifOps(calls)
