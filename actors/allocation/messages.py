"""What callers and operators may ask of an allocation."""

from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct

from actors.fields import MAX_RATE, AccountId, AllocationId, KeyText, Labels, MeterId, NodeId
from amends.domain.api import Asked, Command, Instant, Name, Reason, Request, ShortText

_BEGUN: dict[str, Any] = {
    "state": "requested", "node_id": None, "attempt_id": None, "release_cause": None, "cleanup_pending": False,
    "cleanup_attempts": 0, "billing_state": "none", "access": None, "activated_us": None, "ended_us": None,
    "version": 1,
}  # fmt: skip
_RELEASING: dict[str, Any] = {
    "state": "releasing", "cleanup_pending": False, "cleanup_attempts": 0, "ended_us": None, "version": 13,
}  # fmt: skip


_POSTED = {
    "ledger_key": {"type": "string"}, "amount_minor": {"type": "integer"}, "duplicate": {"type": "boolean"},
}  # fmt: skip
_ACCEPTED = {"accepted_us": {"type": "integer"}, "already_terminal": {"type": "boolean"}}


class RequestAllocation(Request, frozen=True):
    """cmd.allocation.request; `rate_uminor_per_hour` in millionths of a minor unit, or the name of a `price`."""

    command: ClassVar[Command] = Command(
        subject="cmd.allocation.request", help="rent a node", of="allocation", mints="alloc", account="account_id",
        checks=("customer_key", "price"), then=_BEGUN,
        example={"rate_uminor_per_hour": 249000000, "node_labels": {"site": "here"}, "external_ref": "order-7731"},
    )  # fmt: skip
    account_id: Annotated[AccountId, Asked("who pays", "--account", example="acme")]
    ssh_public_key: Annotated[
        KeyText,
        Asked("the customer's key: a line or @FILE", "--ssh-public-key", "line", example="{customer_key}"),
    ]
    rate_uminor_per_hour: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_RATE)] | None,
        Asked("millionths of a minor unit per hour; or --price", "--rate"),
    ] = None
    price: Annotated[Name | None, Asked("the name of a price of the runtime's [prices]", "--price")] = None
    node_labels: Annotated[Labels, Asked("a label that the node must have", "--label")] = {}
    node_id: Annotated[NodeId | None, Asked("this node and no other", "--node")] = None
    external_ref: Annotated[ShortText | None, Asked("a reference of your own", "--external-ref")] = None


class ReleaseAllocation(Request, frozen=True):
    """cmd.allocation.release"""

    command: ClassVar[Command] = Command(
        subject="cmd.allocation.release", help="end a rental", of="allocation", by="allocation_id",
        answer=_ACCEPTED,
        then=_RELEASING, beside={"accepted_us": 1_768_467_660_000_000},
    )  # fmt: skip
    allocation_id: AllocationId


class RetryCleanup(Request, frozen=True):
    """ops.cleanup.retry"""

    command: ClassVar[Command] = Command(
        subject="ops.cleanup.retry", help="try an owed cleanup now", words="retry cleanup", role="operator",
        of="allocation", by="allocation_id", example={"reason": "sshd is back"},
        then={"cleanup_attempts": 0, "version": 22},
    )  # fmt: skip
    allocation_id: AllocationId
    reason: Reason


class ForceRelease(Request, frozen=True):
    """ops.allocation.force_release"""

    command: ClassVar[Command] = Command(
        subject="ops.allocation.force_release", help="end somebody's rental", words="force-release", role="operator",
        of="allocation", by="allocation_id", answer=_ACCEPTED, then={**_RELEASING, "release_cause": "force"},
        beside={"accepted_us": 1_768_467_660_000_000},
        example={"reason_code": "platform_fault", "reason": "the rack loses its cooling"},
    )  # fmt: skip
    allocation_id: AllocationId
    reason_code: Annotated[
        ShortText, Asked("what the policy goes by, such as operator_request or platform_fault", "--reason-code")
    ]
    reason: Reason


class PostWindow(Request, frozen=True):
    """ops.billing.post_window: one debit delivered from outside; it is held to the formula (R05)."""

    command: ClassVar[Command] = Command(
        subject="ops.billing.post_window", help="post the next window of a meter", role="operator", of="allocation",
        found="meter", row="",
        answer=_POSTED,
        example={"amount_minor": 249, "delivery_id": "biller-77", "reason": "the worker was replayed"},
        beside={"ledger_key": "debit:{meter}:1768464000000000", "amount_minor": 249, "duplicate": False},
    )  # fmt: skip
    meter_id: Annotated[MeterId, Asked("the meter", example="{meter}")]
    window_start_us: Annotated[
        Instant, Asked("where the window starts on the grid", "--window", "time", example=1_768_464_000_000_000)
    ]
    amount_minor: Annotated[Annotated[int, Meta(ge=0, le=2**62)], Asked("what it comes to, in minor units", "--amount")]
    delivery_id: Annotated[ShortText, Asked("the sender's own id of this delivery", "--delivery")]
    reason: Reason


class PostWindows(Struct, frozen=True):
    """Windows of its meter have ended and are to be posted."""
