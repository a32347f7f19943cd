"""Who asks, what it may, and whose trace its request belongs to."""

import re
from collections.abc import Mapping

from msgspec import Struct

from amends.values import ids

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
Headers = Mapping[str, str]


class Identity(Struct, frozen=True):
    """Who asks: a name, the accounts it may speak for, and its limits (0: none)."""

    name: str
    accounts: tuple[str, ...] = ("*",)
    role: str = "caller"  # caller, operator or viewer
    commands_per_s: int = 0
    open_requests: int = 0  # rentals of one account that still wait for a node

    @property
    def trusted(self) -> bool:
        """Whether it speaks for every account: operators, and callers of `"*"`."""
        return "*" in self.accounts

    @property
    def operates(self) -> bool:
        """Whether it came with a token of `[operators]`."""
        return self.role != "caller"

    @property
    def key_space(self) -> str:
        """Whose idempotency keys these are; no caller's name has a colon."""
        return f"operator:{self.name}" if self.operates else self.name

    @property
    def actor(self) -> str:
        """As whom it stands in the audit."""
        return f"{'operator' if self.operates else 'caller'}:{self.name}"


class Trace(Struct, frozen=True):
    """Where the span of a request hangs: below a parent, or linked to a span of somebody else's trace, or neither."""

    trace_id: str
    parent_span_id: str = ""
    link: str = ""  # <trace id>:<span id>


def trace_of(headers: Headers, request_id: str, identity: Identity | None) -> Trace:
    """A `traceparent` goes on as the caller's trace if it is trusted with every account; of others it is a link.

    Else they could put spans into a trace of somebody else's (traces.md).
    """
    own = ids.trace_id("request", request_id)
    match = _TRACEPARENT.fullmatch(headers.get("Traceparent", ""))
    if identity is None or match is None or match.group(1) == "0" * 32 or match.group(2) == "0" * 16:
        return Trace(own)
    if identity.trusted:
        return Trace(match.group(1), match.group(2))
    return Trace(own, link=f"{match.group(1)}:{match.group(2)}")
