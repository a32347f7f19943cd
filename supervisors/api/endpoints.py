"""The service's table of subjects: commands as the domains declare them, and the requests of questions."""

import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from actors.account.messages import ResendCredits, RetryMirror
from actors.account.mirror import CASE as MIRROR_CASE
from actors.allocation.messages import PostWindow, RequestAllocation
from actors.attachment.messages import Attach, AttachTo
from actors.fields import AccountId
from actors.tables import MeterRow
from amends.delivery.requests import AcknowledgeCase, RedispatchOutbox, SettleCase
from amends.domain.api import CaseId, Command, Instant, Request, ShortText
from amends.domain.domain import Domain, requests_of
from amends.ports.journal import Journal
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from amends.turn.messages import ResolveCase
from amends.values import ids
from amends.values.errors import Rejected
from amends.values.mount_path import refusal

Outcome = Callable[[str], Awaitable[dict[str, Any]]]
KeyCheck = Callable[[str], str]
Check = Callable[[Any, Identity], Any]  # the request as it may go on; raises `Rejected`
Finder = Callable[[Any], Awaitable[tuple[str, str, Any]]]  # kind and id of the actor, and its message

GivenUp = Callable[[str], Awaitable[list[dict[str, Any]]]]  # by account: credits that never came to Stripe


class CaseShow(Request, frozen=True):
    """ops.case.show"""

    case_id: CaseId


class Empty(Request, frozen=True):
    """A question without fields."""


class Statement(Request, frozen=True):
    """qry.account.statement; times in microseconds. `cursor` is that of the page before."""

    account_id: AccountId
    since_us: Instant | None = None
    until_us: Instant | None = None
    cursor: Annotated[str, Meta(pattern=r"^[0-9]{1,18}:[a-zA-Z0-9_-]{1,64}$(?!\n)")] | None = None


class Export(Request, frozen=True):
    """ops.trace.export: Jaeger's JSON of the newest recovery runs, or of one trace and those it leads to."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    trace_id: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")] | None = None


class ById(Request, frozen=True):
    """qry.<entity>.get"""

    id: ShortText


def commands(
    domains: Sequence[Domain], checks: Mapping[str, Check], found: Mapping[str, Finder], waits: Mapping[str, Outcome]
) -> list[Endpoint]:
    """cmd.* and ops.* that change something. The mappings have what declarations name."""
    born = {message for domain in domains for kind in domain.kinds for message in kind.creates}
    return [
        _endpoint(request, checks, found, waits, exists=request not in born)
        for request in requests_of(domains).values()
    ]


def _endpoint(
    request: type[Request], checks: Mapping[str, Check], found: Mapping[str, Finder], waits: Mapping[str, Outcome],
    *, exists: bool,
) -> Endpoint:  # fmt: skip
    command = request.command
    assert command is not None
    looks = [checks[name] for name in command.checks]

    def prepare(asked: Any, identity: Identity) -> Any:
        for look in looks:
            asked = look(asked, identity)
        return asked

    return Endpoint(
        subject=command.subject, request=request, role=command.role, trusted=command.trusted,
        target=_target(command), mints=command.mints, kind=command.of if command.mints else "",
        locate=found[command.found] if command.found else None, prepare=prepare if looks else None,
        account=(lambda asked: getattr(asked, command.account)) if command.account else None,
        outcome=waits[command.waits] if command.waits else None,
        keyed=command.by if exists and command.subject.startswith("cmd.") else "",
    )  # fmt: skip


def _target(command: Command) -> Callable[[Any], tuple[str, str]] | None:
    if command.one:
        return lambda asked: (command.of, command.one)
    if command.by:
        return lambda asked: (command.of, getattr(asked, command.by))
    return None


# --- what the composition looks at before a request becomes a message ----------------------------------


def checks(customer_key: KeyCheck, host_key: KeyCheck, prices: Mapping[str, int]) -> Mapping[str, Check]:
    """What the rental's declarations name. `prices`: name → millionths of a minor unit an hour."""
    return {
        "customer_key": lambda request, who: _keys(request, customer_key),
        "host_key": lambda request, who: _host_key(request, host_key),
        "price": lambda request, who: _priced(request, prices, who),
        "mount_path": lambda request, who: _path(request),
    }


def _path(request: Attach) -> Attach:
    if why := refusal(request.mount_path):
        raise Rejected("invalid_request", why, field="mount_path")
    return request


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


# --- entities that are found by the id of something they have -------------------------------------------


async def nothing_given_up(account_id: str) -> list[dict[str, Any]]:
    """Of a composition that mirrors nothing."""
    return []


def finders(journal: Journal, given_up: GivenUp = nothing_given_up) -> Mapping[str, Finder]:
    """Who gets a request on an outbox row, a case, a meter, or on credits that were given up."""

    async def outbox(request: RedispatchOutbox) -> tuple[str, str, Any]:
        event = next(iter(await journal.events("", [request.outbox_id])), None)
        if event is None:
            raise Rejected("not_found", f"there is no outbox row {request.outbox_id!r}", field="outbox_id")
        if event.state not in ("parked", "pending"):
            raise Rejected("illegal_transition", f"the outbox row is {event.state}, and waits for nobody")
        return "stream", event.row.stream, request

    async def case(request: SettleCase) -> tuple[str, str, Any]:
        found = await journal.case(request.case_id)
        if found is None:
            raise Rejected("not_found", f"there is no case {request.case_id!r}", field="case_id")
        kind, identifier = ids.split_ref(found.entity)
        row = {**msgspec.structs.asdict(found), "recovery_trace_id": found.recovery_trace_id or None}
        row |= {name: msgspec.json.decode(row[name]) for name in ("commands", "evidence")}
        acknowledge = isinstance(request, AcknowledgeCase)
        beside = await given_up(identifier) if found.kind == MIRROR_CASE and not acknowledge else None
        return kind, identifier, ResolveCase(found.kind, request.case_id, request.reason, acknowledge, row, beside)

    async def mirror(request: RetryMirror) -> tuple[str, str, Any]:
        return "account", request.account_id, ResendCredits(await given_up(request.account_id), request.reason)

    async def meter(request: PostWindow) -> tuple[str, str, Any]:
        found = await journal.find(MeterRow, request.meter_id)
        if found is None:
            raise Rejected("not_found", f"there is no meter {request.meter_id!r}", field="meter_id")
        return "allocation", found.allocation_id, request

    async def rental(request: Attach) -> tuple[str, str, Any]:
        stored = await journal.read_actor("allocation", request.allocation_id)
        if stored is None:
            raise Rejected("not_found", f"there is no allocation {request.allocation_id!r}", field="allocation_id")
        found = msgspec.json.decode(stored.body)
        return "attachment", "", AttachTo(request, found["account_id"], found.get("node_id"))

    return {"outbox": outbox, "case": case, "meter": meter, "mirror": mirror, "rental": rental}
