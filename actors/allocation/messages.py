"""What callers and operators may ask of an allocation."""

from typing import Annotated

from msgspec import Meta

from actors.fields import MAX_RATE, AllocationId, KeyText, Labels, Name, Reason, Request, ShortText


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
