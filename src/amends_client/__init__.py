"""A client of Amends for Python programs: typed calls that are safe to repeat, waiting, events. It needs no runtime.

    async with amends_client.connect("nats://front:…@10.0.0.5:4222", token="…") as client:
        rental = await client.allocation.request(account_id="acme", ssh_public_key=key, price="small")
        row = await rental.until("active", timeout_s=60)

Imports nats-py, msgspec and the standard library only (client.txt). `docs/client.md` is its page.
"""

from amends_client.api.answers import SshAddress
from amends_client.api.kinds import AllocationState, AttachmentState, NamespaceState, NodeState
from amends_client.api.rows import Access, Allocation, Attachment, LedgerEntry, Namespace, Node
from amends_client.calls import CommandOptions, Reply
from amends_client.client import Client, client_of, connect
from amends_client.errors import Ended, NoEvents, Refused, Unreachable
from amends_client.following import Event, Handle

Rental = Handle[Allocation, AllocationState]

__all__ = [
    "Access", "Allocation", "AllocationState", "Attachment", "AttachmentState", "Client", "CommandOptions", "Ended",
    "Event", "Handle", "LedgerEntry", "Namespace", "NamespaceState", "NoEvents", "Node", "NodeState", "Refused",
    "Rental", "Reply", "SshAddress", "Unreachable", "client_of", "connect",
]  # fmt: skip
