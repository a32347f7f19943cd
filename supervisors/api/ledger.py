"""Questions about one entry of the ledger: how it came about, from the meter, the policy, and what was evaluated."""

from collections.abc import Mapping
from typing import Any

import msgspec

from actors.money.explanation import Explanation, Unexplained, explain, rule_of
from actors.money.metering import Usage
from actors.money.policy import Policy
from amends.domain.api import Request, ShortText
from amends.ports.reading import Asker, Reader
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from amends.values.errors import BadConfiguration, Rejected
from supervisors.api.sides import Sides
from supervisors.stored_policy import read_stored

Row = dict[str, Any]


class LedgerExplain(Request, frozen=True):
    """qry.ledger_entry.explain; the key as the entry has it, such as `debit:meter_…:1768464000000000`."""

    idempotency_key: ShortText


NO_EXPONENTS: Mapping[str, int] = {}
WHAT = {
    "topup": "what was paid in, or given back by a bank", "refund": "what was paid back, or taken by a bank",
    "refund_failed": "a refund that did not come through",
}  # fmt: skip


class LedgerQuestions:
    """Answers them. `exponents`: currency → digits of its minor units, of payments; a meter's are its policy's."""

    def __init__(self, sides: Sides, exponents: Mapping[str, int] = NO_EXPONENTS) -> None:
        self._sides, self._exponents = sides, exponents

    def endpoints(self) -> list[Endpoint]:
        """Its subjects."""
        return [
            Endpoint(
                subject="qry.ledger_entry.explain", request=LedgerExplain, role="reader", answer=self._explain
            )
        ]  # fmt: skip

    async def _explain(self, request: LedgerExplain, identity: Identity) -> Row:
        side, asker = self._sides.of(identity)
        key = request.idempotency_key
        found = await side.page("ledger_entry", {"idempotency_key": key}, 1, None, asker)
        entry: Row = found["items"][0] if found["items"] else {}
        if not entry or not (identity.trusted or entry["account_id"] in identity.accounts):
            raise Rejected("not_found", f"there is no ledger entry {key!r}", field="idempotency_key")
        answer: Row = {
            "entry": entry, "meter": None, "what": "", "formula": [], "reckoned_minor": None, "agrees": None,
            "evaluation": None, "rule": None, "policy": None, "traces": {}, "problem": "", "payment": None,
            "minor_unit_exponent": None,
        }  # fmt: skip
        if entry["meter_id"] is None:
            own = {"minor_unit_exponent": self._exponents.get(entry["currency"])}
            return answer | own | await _of_payment(side, asker, entry)
        return answer | await _of_meter(side, asker, entry)


async def _of_payment(side: Reader, asker: Asker, entry: Row) -> Row:
    """What Stripe has said of the payment, and in which trace it was booked."""
    key = entry["idempotency_key"]
    found = await side.rows("payment_of_entry", entry["account_id"], key, asker=asker)
    if not found:
        return {"problem": "no payment has booked it"}
    payment = found[0]
    booked, own = payment["booked"][key], f"{payment['amount_minor']} {payment['currency']} as Stripe counts it"
    traces: Row = {}
    for event in payment["events"]:
        audited = await side.page("audit_log", {"target_ref": f"stripe_event:{event['event_id']}"}, 1, None, asker)
        if audited["items"]:
            traces[event["event_id"]] = audited["items"][0]["trace_id"]
    return {
        "what": WHAT.get(key.partition(":")[0], "a payment"), "payment": payment, "reckoned_minor": booked,
        "agrees": booked == entry["amount_minor"], "traces": traces,
        "formula": [f"payment {payment['payment_id']}: {own}", f"booked under {key}: {booked}"],
    }  # fmt: skip


async def _of_meter(side: Reader, asker: Asker, entry: Row) -> Row:
    meter = await side.get("meter", entry["meter_id"], asker)
    allocation = await side.get("allocation", meter["allocation_id"], asker)
    audited = await side.rows("evaluations", f"meter:{meter['meter_id']}", asker=asker)
    stored = await side.rows("policy_document", meter["policy_sha256"], asker=asker)
    answer: Row = {"meter": meter, "traces": {"allocation": allocation["trace_id"]}}
    identity: Row = {"version": meter["policy_version"], "sha256": meter["policy_sha256"]}
    try:
        policy = read_stored(msgspec.json.encode(stored[0]["body"])) if stored else None
    except BadConfiguration as error:
        return answer | {"policy": identity, "problem": str(error)}
    if policy is None:
        return answer | {"policy": identity, "problem": "the policy of its meter is not stored"}
    answer |= {"policy": identity | _terms(policy), "minor_unit_exponent": policy.minor_unit_exponent}
    usage = Usage(meter["rate_uminor_per_hour"], meter["started_us"], policy.time.unit_us)
    evaluations = [row["details"] for row in audited]
    try:
        found = explain(entry["idempotency_key"], usage, policy, evaluations)
    except Unexplained as error:
        return answer | {"problem": str(error)}
    return answer | _explained(entry, found, policy, answer["traces"], audited)


def _explained(entry: Row, found: Explanation, policy: Policy, traces: Row, audited: list[Row]) -> Row:
    answer: Row = {
        "what": found.what, "formula": list(found.lines), "reckoned_minor": found.amount_minor,
        "agrees": found.amount_minor == entry["amount_minor"],
    }  # fmt: skip
    if found.evaluation is None:
        return answer
    row = next(each for each in audited if each["details"] is found.evaluation)
    ends = {"evaluation": row["trace_id"], "recovery": row["recovery_trace_id"]}
    rule = rule_of(policy, found.evaluation["rule_id"])
    return answer | {
        "evaluation": {"audit_id": row["audit_id"], "at_us": row["at_us"], **_plain(found.evaluation)},
        "rule": msgspec.to_builtins(rule) if rule is not None else None,
        "traces": traces | {name: trace for name, trace in ends.items() if trace},
    }  # fmt: skip


def _terms(policy: Policy) -> Row:
    """What every reckoning by it takes from it."""
    return {
        "currency": policy.currency, "minor_unit_exponent": policy.minor_unit_exponent, "unit_us": policy.time.unit_us,
        "window_us": policy.time.window_us,
    }  # fmt: skip


def _plain(details: Mapping[str, Any]) -> Row:
    return dict(details)
