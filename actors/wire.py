"""What callers and operators may ask of the rental domain: request types are the messages actors get.

Field names, bounds and unknown-field refusal are `api.md` sections 3 and 4. Every request is checked before an
actor sees it; ids that the runtime creates are TypeIDs, names are the caller's.
"""

from typing import Annotated

from msgspec import Meta, Struct

# `$(?!\n)` is the end of the text in Python and in ECMA-262, which JSON Schema prescribes; `$` alone lets a newline by.

Name = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$(?!\n)", description="lower-case letters, digits, dashes")
]
AllocationId = Annotated[str, Meta(pattern=r"^alloc_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)")]
NotificationId = Annotated[str, Meta(pattern=r"^ntf_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)")]
OutboxId = Annotated[str, Meta(pattern=r"^evt_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)")]
CaseId = Annotated[str, Meta(pattern=r"^case_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)")]
Reason = Annotated[str, Meta(min_length=1, max_length=1000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$(?!\n)")]
Currency = Annotated[str, Meta(pattern=r"^[a-z]{3}$(?!\n)")]
Label = Annotated[str, Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
Labels = Annotated[
    dict[Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$(?!\n)")], Label], Meta(max_length=32)
]
ShortText = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
KeyText = Annotated[str, Meta(min_length=1, max_length=16384)]
MAX_RATE = 10**15


class Request(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request's data object; unknown fields are refused."""


class SshAddress(Request, frozen=True):
    """Where a node's SSH server is, and the host key it must show (an OpenSSH public key line)."""

    host: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,252}|[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,15})?)$(?!\n)",
            description="a host name, an IPv4 or an IPv6 address without brackets",
        ),
    ]
    port: Annotated[int, Meta(ge=1, le=65535)]
    host_key: KeyText
    user: Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_-]{0,31}$(?!\n)")] | None = None


class CreateAccount(Request, frozen=True):
    """cmd.account.create"""

    account_id: Name
    currency: Currency
    stripe_customer_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]{1,255}$(?!\n)")] | None = None


class RegisterNode(Request, frozen=True):
    """cmd.node.register"""

    node_id: Name
    ssh: SshAddress
    labels: Labels = {}


class RequestAllocation(Request, frozen=True):
    """cmd.allocation.request; `rate_uminor_per_hour` in millionths of a minor unit, or the name of a `price`."""

    account_id: Name
    ssh_public_key: KeyText
    rate_uminor_per_hour: Annotated[int, Meta(ge=0, le=MAX_RATE)] | None = None
    price: Name | None = None
    node_labels: Labels = {}
    node_id: Name | None = None
    external_ref: ShortText | None = None


class ReleaseAllocation(Request, frozen=True):
    """cmd.allocation.release"""

    allocation_id: AllocationId


class RetryCleanup(Request, frozen=True):
    """ops.cleanup.retry"""

    allocation_id: AllocationId
    reason: Reason


class DrainNode(Request, frozen=True):
    """ops.node.drain"""

    node_id: Name
    reason: Reason


class UndrainNode(DrainNode, frozen=True):
    """ops.node.undrain"""


class QuarantineNode(DrainNode, frozen=True):
    """ops.node.quarantine"""


class ReturnNode(Request, frozen=True):
    """ops.node.return_to_service"""

    node_id: Name
    reason: Reason
    acknowledge_dirty: bool = False


class RetireNode(Request, frozen=True):
    """ops.node.retire"""

    node_id: Name
    reason: Reason
    acknowledge_lost: bool = False


class UpdateNode(Request, frozen=True):
    """ops.node.update"""

    node_id: Name
    reason: Reason
    ssh: SshAddress | None = None
    labels: Labels | None = None
