"""Questions about the credit policy: which one is in force, what an earlier one said, and what it makes of an end."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from actors.fields import MAX_RATE
from actors.money.evaluation import Inputs, evaluate
from actors.money.policy import Cause, Policy
from amends.domain.api import Instant, Request, ShortText
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from amends.values.errors import BadConfiguration, Rejected
from supervisors.api.sides import Sides
from supervisors.stored_policy import read_leniently


class PolicyShow(Request, frozen=True):
    """ops.policy.show; `sha256` asks for one that was in force earlier."""

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")] | None = None


class PolicyEvaluate(Request, frozen=True):
    """ops.policy.evaluate; times in microseconds, `prior_credits` in minor units.

    `later_cause` and `later_stop_us` go together: a cause that came later, and the end that it proves.
    """

    rate_uminor_per_hour: Annotated[int, Meta(ge=0, le=MAX_RATE)]
    started_us: Instant
    cause: Cause
    stop_us: Instant
    posted_through_us: Instant
    reason: ShortText | None = None
    prior_credits: Annotated[int, Meta(ge=0, le=2**53)] = 0
    later_cause: Cause | None = None
    later_stop_us: Instant | None = None


class PolicyQuestions:
    """Answers them. `policy` is the one in force."""

    def __init__(self, sides: Sides, policy: Policy) -> None:
        self._sides, self._policy = sides, policy

    def endpoints(self) -> list[Endpoint]:
        """Its subjects."""
        return [
            Endpoint(subject="ops.policy.show", request=PolicyShow, role="viewer", answer=self._show),
            Endpoint(subject="ops.policy.evaluate", request=PolicyEvaluate, role="viewer", answer=self._evaluate),
        ]

    async def _show(self, request: PolicyShow, identity: Identity) -> dict[str, Any]:
        sha256 = request.sha256 or self._policy.sha256
        side, asker = self._sides.of(identity)
        found = await side.rows("policy_document", sha256, asker=asker)
        if not found:
            raise Rejected("not_found", f"no policy with the hash {sha256} was ever in force here", field="sha256")
        return shown(found[0]["body"], sha256) | {"in_force": sha256 == self._policy.sha256}

    async def _evaluate(self, request: PolicyEvaluate, identity: Identity) -> dict[str, Any]:
        policy = self._policy
        if (request.later_cause is None) != (request.later_stop_us is None):
            missing = "later_cause" if request.later_cause is None else "later_stop_us"
            text = f"later_cause and later_stop_us go together: {missing} is missing"
            raise Rejected("invalid_request", text, field=missing)
        given = Inputs(
            rate_uminor_per_hour=request.rate_uminor_per_hour, started_us=request.started_us, cause=request.cause,
            stop_us=request.stop_us, posted_through_us=request.posted_through_us, reason=request.reason or "",
            prior_credits=request.prior_credits, later_stop_us=request.later_stop_us,
        )  # fmt: skip
        amounts: dict[str, Any] = msgspec.to_builtins(evaluate(policy, given))
        return amounts | {"policy_version": policy.version, "policy_sha256": policy.sha256}


def shown(body: dict[str, Any], sha256: str) -> dict[str, Any]:
    """A stored policy for people: its text, and its rules as they are read.

    What of it an earlier release took and this one refuses is named, and what is no policy at all has no rules.
    """
    answer: dict[str, Any] = {"toml": str(body.get("toml", "")), "sha256": sha256}
    try:
        policy, mended = read_leniently(msgspec.json.encode(body))
    except BadConfiguration as error:
        return answer | {"version": None, "currency": None, "rules": [], "problem": str(error)}
    rules = msgspec.to_builtins(policy.rules)
    return answer | {
        "version": policy.version,
        "currency": policy.currency,
        "rules": rules,
        "problem": "; ".join(mended),
    }
