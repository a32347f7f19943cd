"""Steps: what an adapter gets for one try, and the three outcomes it may have."""

from typing import Any, Literal, Protocol

from msgspec import Struct

OutcomeKind = Literal["done", "failed", "unknown"]


class StepCall(Struct, frozen=True):
    """One try of a step, as its adapter gets it after the intent has committed.

    `target` is a target_ref such as ``node:n1``; `epoch` the runtime's; `timeout_ms` bounds the whole call.
    """

    step_id: str
    name: str
    entity: str
    target: str
    args: dict[str, Any]
    attempt: int
    idempotency_key: str
    epoch: int
    timeout_ms: int
    trace_id: str
    span_id: str


class Outcome(Struct, frozen=True):
    """How a try ended. `unknown` means that the effect may or may not have happened: it is probed or undone.

    `may_have_run` false says that it certainly did not (a failed connection).
    """

    kind: OutcomeKind
    code: str = ""
    message: str = ""
    may_have_run: bool = True
    data: dict[str, Any] = {}


class StepRunner(Protocol):
    """An adapter that does steps. It never raises for the world's failures: those are outcomes."""

    async def run(self, call: StepCall) -> Outcome:
        """Do the step; bounded by `call.timeout_ms`."""
        ...
