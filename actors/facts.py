"""The only questions about others that a decision may ask. The fleet's index answers them from committed states.

What a decision relies on at its commit it requires (`Decision.require`); a fact may be older than that.
"""

from collections.abc import Sequence
from typing import Protocol, cast

from actors.account.state import Account
from actors.allocation.state import Allocation
from actors.attachment.state import Attachment
from actors.money.policy import Policy
from actors.namespace.state import Namespace
from actors.node.state import Node
from amends.turn.decision import Decision


class Facts(Protocol):
    """See above."""

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        ...

    def policy_of(self, sha256: str) -> Policy:
        """The policy that a meter was opened under; KeyError where it is not stored."""
        ...

    @property
    def restored(self) -> int:
        """The number of the last restore of the database; 0 if it never was."""
        ...

    def posted_us(self, meter_id: str) -> int | None:
        """Through which instant a running meter is posted."""
        ...

    def account(self, account_id: str) -> Account | None:
        """The committed account."""
        ...

    @property
    def mirrors(self) -> bool:
        """Whether credits are mirrored to Stripe."""
        ...

    def payer(self, account_id: str, customer: str) -> tuple[str, str] | None:
        """(account, currency) of who pays: the account that is named, else the only one with that Stripe customer."""
        ...

    def balance_minor(self, account_id: str) -> int:
        """What the account has, by all entries that have committed."""
        ...

    def allocation(self, allocation_id: str) -> Allocation | None:
        """The committed allocation, if it is in memory: it lives, or owes something."""
        ...

    def namespace(self, namespace_id: str) -> Namespace | None:
        """The committed namespace; None of one that is archived and forgotten."""
        ...

    def attachments_of(self, allocation_id: str) -> list[str]:
        """The attachments of a rental that are neither ended nor given up."""
        ...

    def attachments_of_namespace(self, namespace_id: str) -> list[str]:
        """All attachments of a namespace that have not ended."""
        ...

    def attachments_on(self, node_id: str) -> list[str]:
        """All attachments of a node that have not ended."""
        ...

    def writers_of(self, namespace_id: str) -> list[str]:
        """Those of a namespace that may write."""
        ...

    def writing_nodes(self, namespace_id: str) -> list[str]:
        """Those for which a read-write grant of the namespace stands, whoever wanted it."""
        ...

    def grants_of(self, namespace_id: str) -> list[tuple[str, str, str]]:
        """(grant, node, state) of all grants of a namespace that have not ended."""
        ...

    def touched_us(self, ref: str) -> int:
        """When something was begun or ended on a node or with a namespace last, or this runtime began."""
        ...

    def mounts_on(self, node_id: str) -> list[tuple[str, str, str]]:
        """(attachment, path, state) of all that are on the node, or will be."""
        ...

    def mounting_on(self, node_id: str) -> list[str]:
        """The attachments that are being mounted on the node."""
        ...

    def attachment(self, attachment_id: str) -> Attachment | None:
        """The committed attachment, if it is in memory."""
        ...

    def owed_mounts(self, node_id: str) -> list[str]:
        """The attachments whose unmount the node owes."""
        ...

    def expected_mounts(self, node_id: str) -> list[str]:
        """The attachments whose mount may stay on the node."""
        ...

    def node(self, node_id: str) -> Node | None:
        """The committed node, if it lives."""
        ...

    def node_with_key(self, host_key: str) -> str | None:
        """The living node that shows this SSH host key."""
        ...

    def assignment_of(self, node_id: str) -> tuple[str, str] | None:
        """(allocation, `reserved` or `active`) of the node."""
        ...

    def is_dirty(self, node_id: str) -> bool:
        """Whether the node owes a cleanup or a mount."""
        ...

    def debtors(self, node_id: str) -> list[str]:
        """The allocations whose cleanup the node owes."""
        ...

    def expected_users(self, node_id: str) -> list[str]:
        """The users that may be on the node."""
        ...

    def is_heard(self, node_id: str) -> bool:
        """Whether the node is heard and not silent."""
        ...

    def heard_boot(self, node_id: str) -> str:
        """The boot id of its last heartbeat, "" if it was not heard since the start."""
        ...

    def last_seen_us(self, node_id: str) -> int:
        """When the node was last heard; 0 if never."""
        ...

    def concerned_by_loss(self, node_id: str, beat_us: int) -> list[str]:
        """The allocations of a node that its loss concerns: the one it has, and those that ended after that instant."""
        ...

    def held_nodes(self, domain: str | None, node_ids: Sequence[str] | None) -> list[str]:
        """The silent nodes on which the guards let no verdict pass, of a domain and of these."""
        ...

    def ssh_works_elsewhere(self, node_id: str, since_us: int) -> bool:
        """Whether a step has gone well on another node since then, so that the trouble is not our own (A7)."""
        ...


def facts(d: Decision) -> Facts:
    """What this turn may ask."""
    return cast("Facts", d.facts)
