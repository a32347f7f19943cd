"""The API as one table: subject → request type, role, actor. Commands and operators' commands of what is built."""

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from actors.account.messages import CreateAccount
from actors.allocation.messages import ReleaseAllocation, RequestAllocation, RetryCleanup
from actors.fields import CaseId, Name, NotificationId, OutboxId, Reason, Request, ShortText
from actors.node.messages import (
    DrainNode,
    QuarantineNode,
    RegisterNode,
    RetireNode,
    ReturnNode,
    UndrainNode,
    UpdateNode,
)
from amends.delivery.notifications import CancelNotification, Redispatch
from amends.delivery.streams import CreateStreams, Republish, SettleOutbox
from amends.ports.journal import Journal
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from amends.turn.decision import EVENTS
from amends.turn.messages import ResolveCase
from amends.values import ids
from amends.values.errors import Rejected

Outcome = Callable[[str], Awaitable[dict[str, Any]]]
KeyCheck = Callable[[str], str]
Instant = Annotated[int, Meta(ge=0, le=2**62, description="microseconds since the Unix epoch, UTC")]


class NotificationCommand(Request, frozen=True):
    """ops.notification.redispatch, ops.notification.cancel"""

    notification_id: NotificationId
    reason: Reason


class OutboxCommand(Request, frozen=True):
    """ops.outbox.redispatch, ops.outbox.skip"""

    outbox_id: OutboxId
    reason: Reason


class CaseCommand(Request, frozen=True):
    """ops.case.resolve, ops.case.acknowledge"""

    case_id: CaseId
    reason: Reason


class CaseShow(Request, frozen=True):
    """ops.case.show"""

    case_id: CaseId


class ReasonOnly(Request, frozen=True):
    """A change that needs nothing but its reason."""

    reason: Reason


class RepublishSince(Request, frozen=True):
    """ops.outbox.republish"""

    since_us: Instant
    reason: Reason


class Empty(Request, frozen=True):
    """A question without fields."""


class Statement(Request, frozen=True):
    """qry.account.statement; times in microseconds."""

    account_id: Name
    since_us: Instant | None = None
    until_us: Instant | None = None


class Export(Request, frozen=True):
    """ops.trace.export: Jaeger's JSON of the newest recovery runs, or of one trace and those it leads to."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    trace_id: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")] | None = None


class ById(Request, frozen=True):
    """qry.<entity>.get"""

    id: ShortText


def _keys(request: RequestAllocation, check: KeyCheck) -> RequestAllocation:
    return msgspec.structs.replace(request, ssh_public_key=_checked(check, request.ssh_public_key, "ssh_public_key"))


def _priced(request: RequestAllocation, prices: Mapping[str, int], identity: Identity) -> RequestAllocation:
    """With its rate: given by those who are trusted with every account, of a price's name for everybody (api.md 3)."""
    price, rate = request.price, request.rate_uminor_per_hour
    if rate is not None and price is not None:
        text = "a request names a price or gives rate_uminor_per_hour, not both"
        raise Rejected("invalid_request", text, field="price")
    if rate is not None:
        if not identity.trusted:
            text = "only callers of every account may give rate_uminor_per_hour; name a price"
            raise Rejected("forbidden", text, field="rate_uminor_per_hour")
        return request
    if price is None:
        missing = "rate_uminor_per_hour" if identity.trusted else "price"
        raise Rejected("invalid_request", f"Object missing required field `{missing}`", field=missing)
    if price not in prices:
        known = ", ".join(sorted(prices)) or "none"
        raise Rejected("invalid_request", f"[prices] has no {price!r}; it has: {known}", field="price")
    return msgspec.structs.replace(request, rate_uminor_per_hour=prices[price])


def _checked(check: KeyCheck, text: str, field: str) -> str:
    try:
        return check(text)
    except ValueError as error:
        raise Rejected("invalid_request", f"{field}: {error}", field=field) from None


def _host_key(request: Any, check: KeyCheck) -> Any:
    if request.ssh is None:
        return request
    if ":" in request.ssh.host:
        try:
            ipaddress.IPv6Address(request.ssh.host)
        except ValueError as error:
            raise Rejected("invalid_request", f"ssh.host is no IPv6 address: {error}", field="ssh.host") from None
    ssh = msgspec.structs.replace(request.ssh, host_key=_checked(check, request.ssh.host_key, "ssh.host_key"))
    return msgspec.structs.replace(request, ssh=ssh)


def commands(customer_key: KeyCheck, host_key: KeyCheck, prices: Mapping[str, int]) -> list[Endpoint]:
    """cmd.* and ops.* that change something. `prices`: name → millionths of a minor unit an hour."""

    def node(request: Any) -> tuple[str, str]:
        return "node", request.node_id

    def allocation(request: Any) -> tuple[str, str]:
        return "allocation", request.allocation_id

    table: list[Endpoint] = [
        Endpoint(
            subject="cmd.account.create", request=CreateAccount, target=lambda r: ("account", r.account_id),
            account=lambda r: r.account_id,
        ),
        Endpoint(
            subject="cmd.node.register", request=RegisterNode, target=node, trusted=True,
            prepare=lambda r, who: _host_key(r, host_key),
        ),
        Endpoint(
            subject="cmd.allocation.request", request=RequestAllocation, mints="alloc", kind="allocation",
            prepare=lambda r, who: _priced(_keys(r, customer_key), prices, who), account=lambda r: r.account_id,
        ),
        Endpoint(
            subject="cmd.allocation.release", request=ReleaseAllocation, target=allocation
        ),
        Endpoint(subject="ops.cleanup.retry", request=RetryCleanup, target=allocation, role="operator"),
        Endpoint(
            subject="ops.node.update", request=UpdateNode, target=node, role="operator",
            prepare=lambda r, who: _host_key(r, host_key),
        ),
    ]  # fmt: skip
    operators = {
        "drain": DrainNode, "undrain": UndrainNode, "quarantine": QuarantineNode,
        "return_to_service": ReturnNode, "retire": RetireNode,
    }  # fmt: skip
    table += [
        Endpoint(subject=f"ops.node.{verb}", request=request, target=node, role="operator")
        for verb, request in operators.items()
    ]
    return table


def delivery_commands(journal: Journal, republished: Outcome) -> list[Endpoint]:
    """Operators' commands on notifications, outbox rows and cases, which are found by their own id.

    `republished` waits for what a republish came to, by its request.
    """

    def notification(request: NotificationCommand) -> tuple[str, str]:
        return "notification", request.notification_id

    def outbox(skip: bool) -> Callable[[OutboxCommand], Awaitable[tuple[str, str, Any]]]:
        async def locate(request: OutboxCommand) -> tuple[str, str, Any]:
            event = next(iter(await journal.events("", [request.outbox_id])), None)
            if event is None:
                raise Rejected("not_found", f"there is no outbox row {request.outbox_id!r}")
            if event.state not in ("parked", "pending"):
                raise Rejected("illegal_transition", f"the outbox row is {event.state}, and waits for nobody")
            return "stream", event.row.stream, SettleOutbox(request.outbox_id, request.reason, skip)

        return locate

    def case(acknowledge: bool) -> Callable[[CaseCommand], Awaitable[tuple[str, str, Any]]]:
        async def locate(request: CaseCommand) -> tuple[str, str, Any]:
            found = await journal.case(request.case_id)
            if found is None:
                raise Rejected("not_found", f"there is no case {request.case_id!r}")
            kind, identifier = ids.split_ref(found.entity)
            row = {**msgspec.structs.asdict(found), "recovery_trace_id": found.recovery_trace_id or None}
            row |= {name: msgspec.json.decode(row[name]) for name in ("commands", "evidence")}
            return kind, identifier, ResolveCase(found.kind, request.case_id, request.reason, acknowledge, row)

        return locate

    return [
        Endpoint(
            subject="ops.notification.redispatch", request=NotificationCommand, role="operator", target=notification,
            message=lambda r: Redispatch(r.reason),
        ),
        Endpoint(
            subject="ops.notification.cancel", request=NotificationCommand, role="operator", target=notification,
            message=lambda r: CancelNotification(r.reason),
        ),
        Endpoint(subject="ops.outbox.redispatch", request=OutboxCommand, role="operator", locate=outbox(False)),
        Endpoint(subject="ops.outbox.skip", request=OutboxCommand, role="operator", locate=outbox(True)),
        Endpoint(
            subject="ops.streams.create", request=ReasonOnly, role="operator", target=lambda r: ("stream", EVENTS),
            message=lambda r: CreateStreams(r.reason),
        ),
        Endpoint(
            subject="ops.outbox.republish", request=RepublishSince, role="operator",
            target=lambda r: ("stream", EVENTS), message=lambda r: Republish(r.since_us, r.reason),
            outcome=republished,
        ),
        Endpoint(subject="ops.case.resolve", request=CaseCommand, role="operator", locate=case(False)),
        Endpoint(subject="ops.case.acknowledge", request=CaseCommand, role="operator", locate=case(True)),
    ]  # fmt: skip
