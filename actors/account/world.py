"""An account beside Stripe: credits there that the ledger does not know, and those that should be there and are not.

One account asks for all that have its customer. What is on its way is no difference; who reads both sides
(`supervisors.stripe_look`) leaves that out. Nothing is sent and nothing is taken back.
"""

from typing import Any

from actors.account.state import Account
from actors.differences import Difference, LookAround, answered, settle
from actors.facts import facts
from amends.turn.decision import Decision
from amends.turn.messages import StepDone

STEP = "stripe.mirrored"
COMMANDS = ("ops.case.resolve",)


def look(s: Account, m: LookAround, d: Decision) -> None:
    """Ask what Stripe has of its customer."""
    if s.look.step or not s.stripe_customer_id or not facts(d).mirrors:
        return
    args = {"customer": s.stripe_customer_id, "grace_ms": d.limits("world_grace_ms")}
    d.part("look", step=d.step(STEP, f"customer:{s.stripe_customer_id}", args))


def seen(s: Account, m: StepDone, d: Decision) -> None:
    """It is known what differs, or Stripe could not be asked."""
    if not answered(d, m):
        return
    found = [_of(d.id, m.args["customer"], each) for each in m.outcome.data["differences"]]
    settle(d, found, seen_us=m.ended_us, whole=m.outcome.data["whole"], commands=COMMANDS)


def _of(account_id: str, customer: str, each: dict[str, Any]) -> Difference:
    owner = each["account_id"] or account_id
    names = {"account_id": owner, "customer": customer, "found": "credit", "name": each["key"]}
    return Difference(f"account:{owner}/credit:{each['key']}", each["seen"], each["database"], names)
