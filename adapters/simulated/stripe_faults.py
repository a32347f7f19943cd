"""What goes wrong with the next requests to the simulated Stripe."""

from collections import deque
from typing import Final, Literal

from msgspec import Struct

from adapters.simulated.stripe_errors import Refusal, Request, full
from adapters.simulated.stripe_keys import in_flight

FaultKind = Literal[
    "error", "stored_error", "done_stored_error", "cut", "cut_before", "rate_limit", "in_flight", "delay", "refuse",
]  # fmt: skip
MAX_WAITING: Final = 1000


class StripeFault(Struct, forbid_unknown_fields=True):
    """What meets the next `times` requests that begin with `match`, such as ``POST /v1/customers``; "" for any.

    error: 500, nothing done or kept · stored_error: 500, nothing done, kept under the key · done_stored_error: done,
    and answered with a 500 that is kept · cut: done, and the connection is cut before the answer · cut_before: cut,
    nothing done · rate_limit: 429 · in_flight: 409 · delay: `seconds` pass before it is done, its key in flight ·
    refuse: no connection (in one process; the server has `refuse` of its own).
    """

    kind: FaultKind
    times: int = 1
    seconds: float = 0.0
    match: str = ""


class FaultPlan:
    """The faults that wait, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._waiting: deque[StripeFault] = deque()

    def add(self, fault: StripeFault) -> None:
        """One more; raises `Refusal` beyond the bound."""
        if len(self._waiting) >= MAX_WAITING:
            raise full("faults")
        self._waiting.append(fault)

    def mend(self) -> None:
        """Nothing goes wrong any more."""
        self._waiting.clear()

    def next(self, request: Request) -> StripeFault | None:
        """The fault that meets this request."""
        line = f"{request.method} {request.path}"
        for fault in self._waiting:
            if line.startswith(fault.match):
                fault.times -= 1
                if fault.times <= 0:
                    self._waiting.remove(fault)
                return fault
        return None


def broken() -> Refusal:
    """Stripe's own error."""
    return Refusal(500, "An unknown error occurred", kind="api_error")


def limited() -> Refusal:
    """Follows "Rate limits": the limiter stands before the idempotency layer, so nothing is kept."""
    return Refusal(429, "Request rate limit exceeded.", code="rate_limit", began=False)


# Answered before the endpoint is reached, nothing kept.
BEFORE: Final = {"error": broken, "rate_limit": limited, "in_flight": in_flight}
# The request never came to be read.
UNHEARD: Final = ("cut_before", "refuse")
