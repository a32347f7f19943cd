"""Commands and questions of callers (cmd, qry).

Written by `python -m tools.client`: change the tables that it reads, not this file.
"""

from collections.abc import Mapping
from typing import Literal, Unpack

import msgspec

from amends_client.api.answers import AccountStatementAnswer, LedgerEntryExplainAnswer, SshAddress
from amends_client.api.kinds import (
    ACCOUNT,
    ALLOCATION,
    ATTACHMENT,
    AUDIT_LOG,
    COMPENSATION,
    DEBT,
    FAILURE,
    LEDGER_ENTRY,
    METER,
    NAMESPACE,
    NODE,
    NOTIFICATION,
    OPS_CASE,
    OUTBOX,
    PAYMENT,
    PROVIDER_GRANT,
    RECOVERY_ACTION,
    RECOVERY_RUN,
    STEP,
    STRIPE_EVENT,
    AccountState,
    AllocationState,
    AttachmentState,
    NamespaceState,
    NodeState,
)
from amends_client.api.rows import (
    Account,
    Allocation,
    Attachment,
    AuditLog,
    Compensation,
    Debt,
    Failure,
    LedgerEntry,
    Meter,
    Namespace,
    Node,
    Notification,
    OpsCase,
    Outbox,
    Payment,
    ProviderGrant,
    RecoveryAction,
    RecoveryRun,
    Step,
    StripeEvent,
)
from amends_client.calls import Calls, CommandOptions, given
from amends_client.following import Handle, Lives, handle
from amends_client.reading import Rows


class AccountCalls(Lives[Account, AccountState]):
    """Rows of `account`, and what callers may do or ask about them."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls, ACCOUNT)

    async def create(
        self,
        *,
        account_id: str,
        currency: str,
        stripe_customer_id: str | None = None,
        **options: Unpack[CommandOptions],
    ) -> Handle[Account, AccountState]:
        """Make an account (for callers and operators).

        `account_id`: its name; `currency`: three letters, as in the policy; `stripe_customer_id`: its customer at
        Stripe.
        """
        reply = await self._calls.command(
            "cmd.account.create",
            given(account_id=account_id, currency=currency, stripe_customer_id=stripe_customer_id),
            options,
        )
        return handle(self._calls, ACCOUNT, reply)

    async def statement(
        self,
        *,
        account_id: str,
        since_us: int | None = None,
        until_us: int | None = None,
        cursor: str | None = None,
        deadline_s: float | None = None,
    ) -> AccountStatementAnswer:
        """What an account was charged and credited (for callers, operators, viewers).

        At most 1000 entries: with a `cursor` in the answer, ask again with it.
        """
        answer = await self._calls.ask(
            "qry.account.statement",
            given(account_id=account_id, since_us=since_us, until_us=until_us, cursor=cursor),
            deadline_s,
        )
        return msgspec.convert(answer, AccountStatementAnswer)


class NodeCalls(Lives[Node, NodeState]):
    """Rows of `node`, and what callers may do or ask about them."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls, NODE)

    async def register(
        self,
        *,
        node_id: str,
        ssh: SshAddress,
        labels: Mapping[str, str] | None = None,
        **options: Unpack[CommandOptions],
    ) -> Handle[Node, NodeState]:
        """Make a machine known (for callers of `"*"` and operators).

        `node_id`: the node; `ssh.host`: where its SSH server is; `ssh.port`: its port; `ssh.host_key`: the host key it
        must show; `ssh.user`: as whom to log in, if not as [ssh].user; `labels`: a label of the node.
        """
        reply = await self._calls.command("cmd.node.register", given(node_id=node_id, ssh=ssh, labels=labels), options)
        return handle(self._calls, NODE, reply)


class AllocationCalls(Lives[Allocation, AllocationState]):
    """Rows of `allocation`, and what callers may do or ask about them."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls, ALLOCATION)

    async def request(
        self,
        *,
        account_id: str,
        ssh_public_key: str,
        rate_uminor_per_hour: int | None = None,
        price: str | None = None,
        node_labels: Mapping[str, str] | None = None,
        node_id: str | None = None,
        external_ref: str | None = None,
        **options: Unpack[CommandOptions],
    ) -> Handle[Allocation, AllocationState]:
        """Rent a node (for callers and operators).

        `account_id`: who pays; `ssh_public_key`: the customer's key; `rate_uminor_per_hour`: millionths of a minor unit
        per hour; `price`: the name of a price of the runtime's [prices]; `node_labels`: a label that the node must
        have; `node_id`: this node and no other; `external_ref`: a reference of your own. Either `rate_uminor_per_hour`
        (callers of all accounts) or `price`.
        """
        reply = await self._calls.command(
            "cmd.allocation.request",
            given(
                account_id=account_id,
                ssh_public_key=ssh_public_key,
                rate_uminor_per_hour=rate_uminor_per_hour,
                price=price,
                node_labels=node_labels,
                node_id=node_id,
                external_ref=external_ref,
            ),
            options,
        )
        return handle(self._calls, ALLOCATION, reply)

    async def release(
        self, *, allocation_id: str, **options: Unpack[CommandOptions]
    ) -> Handle[Allocation, AllocationState]:
        """End a rental (for callers and operators).

        `allocation_id`: the allocation.
        """
        reply = await self._calls.command("cmd.allocation.release", given(allocation_id=allocation_id), options)
        return handle(self._calls, ALLOCATION, reply)


class AttachmentCalls(Lives[Attachment, AttachmentState]):
    """Rows of `attachment`, and what callers may do or ask about them."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls, ATTACHMENT)

    async def detach(
        self, *, attachment_id: str, **options: Unpack[CommandOptions]
    ) -> Handle[Attachment, AttachmentState]:
        """Unmount it and give its access back (for callers and operators).

        `attachment_id`: the attachment.
        """
        reply = await self._calls.command("cmd.attachment.detach", given(attachment_id=attachment_id), options)
        return handle(self._calls, ATTACHMENT, reply)

    async def attach(
        self,
        *,
        allocation_id: str,
        namespace_id: str,
        mode: Literal["ro", "rw"],
        mount_path: str,
        **options: Unpack[CommandOptions],
    ) -> Handle[Attachment, AttachmentState]:
        """Mount a namespace on a rental's node (for callers and operators).

        `allocation_id`: the rental; `namespace_id`: the namespace; `mode`: ro or rw; `mount_path`: where on the node.
        """
        reply = await self._calls.command(
            "cmd.attachment.attach",
            given(allocation_id=allocation_id, namespace_id=namespace_id, mode=mode, mount_path=mount_path),
            options,
        )
        return handle(self._calls, ATTACHMENT, reply)


class NamespaceCalls(Lives[Namespace, NamespaceState]):
    """Rows of `namespace`, and what callers may do or ask about them."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls, NAMESPACE)

    async def create(
        self,
        *,
        namespace_id: str,
        account_id: str,
        provider_id: str,
        quota_bytes: int,
        **options: Unpack[CommandOptions],
    ) -> Handle[Namespace, NamespaceState]:
        """Make a namespace known (for callers and operators).

        `namespace_id`: the namespace; `account_id`: whose it is; `provider_id`: the storage provider; `quota_bytes`:
        bytes.
        """
        reply = await self._calls.command(
            "cmd.namespace.create",
            given(namespace_id=namespace_id, account_id=account_id, provider_id=provider_id, quota_bytes=quota_bytes),
            options,
        )
        return handle(self._calls, NAMESPACE, reply)

    async def set_quota(
        self, *, namespace_id: str, quota_bytes: int, **options: Unpack[CommandOptions]
    ) -> Handle[Namespace, NamespaceState]:
        """Change its quota (for callers and operators).

        `namespace_id`: the namespace; `quota_bytes`: bytes.
        """
        reply = await self._calls.command(
            "cmd.namespace.set_quota", given(namespace_id=namespace_id, quota_bytes=quota_bytes), options
        )
        return handle(self._calls, NAMESPACE, reply)

    async def archive(
        self, *, namespace_id: str, **options: Unpack[CommandOptions]
    ) -> Handle[Namespace, NamespaceState]:
        """End a namespace without attachments; its data stays where it is (for callers and operators).

        `namespace_id`: the namespace.
        """
        reply = await self._calls.command("cmd.namespace.archive", given(namespace_id=namespace_id), options)
        return handle(self._calls, NAMESPACE, reply)


class LedgerEntryCalls(Rows[LedgerEntry]):
    """Rows of `ledger_entry`, and what callers may do or ask about them."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls, LEDGER_ENTRY)

    async def explain(self, *, idempotency_key: str, deadline_s: float | None = None) -> LedgerEntryExplainAnswer:
        """How an entry of the ledger came about (for callers, operators, viewers)."""
        answer = await self._calls.ask("qry.ledger_entry.explain", given(idempotency_key=idempotency_key), deadline_s)
        return msgspec.convert(answer, LedgerEntryExplainAnswer)


class Callers:
    """All that callers may ask: a group for each entity, with `get`, `list` and its commands."""

    def __init__(self, calls: Calls) -> None:
        self.account = AccountCalls(calls)
        self.node = NodeCalls(calls)
        self.allocation = AllocationCalls(calls)
        self.attachment = AttachmentCalls(calls)
        self.namespace = NamespaceCalls(calls)
        self.provider_grant = Rows[ProviderGrant](calls, PROVIDER_GRANT)
        self.debt = Rows[Debt](calls, DEBT)
        self.meter = Rows[Meter](calls, METER)
        self.ledger_entry = LedgerEntryCalls(calls)
        self.payment = Rows[Payment](calls, PAYMENT)
        self.stripe_event = Rows[StripeEvent](calls, STRIPE_EVENT)
        self.notification = Rows[Notification](calls, NOTIFICATION)
        self.outbox = Rows[Outbox](calls, OUTBOX)
        self.step = Rows[Step](calls, STEP)
        self.failure = Rows[Failure](calls, FAILURE)
        self.recovery_run = Rows[RecoveryRun](calls, RECOVERY_RUN)
        self.recovery_action = Rows[RecoveryAction](calls, RECOVERY_ACTION)
        self.compensation = Rows[Compensation](calls, COMPENSATION)
        self.audit_log = Rows[AuditLog](calls, AUDIT_LOG)
        self.ops_case = Rows[OpsCase](calls, OPS_CASE)
