"""What Stripe has of a customer beside what the ledger says it has: the step `stripe.mirrored`, which only reads.

The ledger is read before and after, so that a credit which is sent meanwhile is no difference; one younger than the
grace is left out, and one that is on its way or was given up is the mirror's own affair.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from amends.ports.steps import Outcome, StepCall
from amends.values.errors import Rejected, TooSlow, Unavailable
from amends.values.text import printable

STEP = "stripe.mirrored"
MOST = 64  # differences that one look tells
MAX_KEY = 200
Row = dict[str, Any]
Rows = Callable[[str], Awaitable[Sequence[Row]]]  # what the ledger says of a customer
At = Mapping[str, Sequence[tuple[int, str]]]  # key → (minor, currency) of each credit
Mirrored = Callable[[str], Awaitable[At]]


class StripeLook:
    """Implements `amends.ports.steps.StepRunner` for it; `mirrored` raises as `StripeLedger.mirrored`."""

    def __init__(self, rows: Rows, mirrored: Mirrored, now_us: Callable[[], int]) -> None:
        self._rows, self._mirrored, self._now_us = rows, mirrored, now_us

    async def run(self, call: StepCall) -> Outcome:
        """Compare once, within `call.timeout_ms`."""
        customer, before_us = call.args["customer"], self._now_us() - call.args["grace_ms"] * 1000
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                return await self._compared(customer, before_us)
        except TimeoutError:
            return Outcome("unknown", "stripe_timeout", f"no answer within {call.timeout_ms} ms")

    async def _compared(self, customer: str, before_us: int) -> Outcome:
        try:
            before = await self._rows(customer)
            there = await self._there(customer)
            after = await self._rows(customer) if not isinstance(there, Outcome) else ()
        except (Rejected, TooSlow, Unavailable) as error:
            return Outcome("failed", "db_unavailable", str(error), may_have_run=False)
        if isinstance(there, Outcome):
            return there
        found = list(_differences(before, there, after, before_us))
        return Outcome("done", data={"differences": found[:MOST], "whole": len(found) <= MOST})

    async def _there(self, customer: str) -> At | Outcome:
        try:
            return await self._mirrored(customer)
        except TooSlow as error:
            return Outcome("failed", "stripe_too_many", str(error), may_have_run=False)
        except Rejected as error:
            return Outcome("failed", "stripe_refused", str(error), may_have_run=False)
        except Unavailable as error:
            return Outcome("failed", "stripe_unreachable", str(error), may_have_run=False)


def _differences(before: Sequence[Row], there: At, after: Sequence[Row], before_us: int) -> Iterator[Row]:
    known = {row["ledger_key"]: row for row in after}
    settled = {row["ledger_key"] for row in before if row["state"] == "done" and row["first_us"] < before_us}
    for key in sorted({*there, *settled}):
        row, made = known.get(key), list(there.get(key, ()))
        told = ", ".join(f"{minor} {currency}" for minor, currency in made) or "nothing"
        if row is None:
            yield _difference("", key, f"at Stripe: {told}", "the ledger has sent no such credit")
        elif key in settled and row["state"] == "done" and made != [(row["amount_minor"], row["currency"])]:
            wanted = f"sent and acknowledged: {row['amount_minor']} {row['currency']}"
            yield _difference(row["account_id"], key, f"at Stripe: {told}", wanted)


def _difference(account_id: str, key: str, seen: str, database: str) -> Row:
    said = printable(seen, MAX_KEY)
    return {"account_id": account_id, "key": printable(key, MAX_KEY), "seen": said, "database": database}
