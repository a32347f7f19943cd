"""Rentals that end otherwise than their customer meant: the node dies (R08), an operator forces the release (R09)."""

import asyncio
import time

from actors.money.metering import Usage
from supervisors.demo.site import DemoFailed, Site
from supervisors.demo.teller import Teller

RATE = 3_600_000_000_000  # ten US dollars a second, so that there is something to see
UNIT_US = 1_000_000
LOOKS = 3


async def rented(site: Site, tell: Teller) -> tuple[str, str]:
    """An active rental whose running price is told for some seconds; its id and its node's."""
    allocation = await site.request(rate_uminor_per_hour=RATE)
    await site.allocation_is(allocation, "active")
    row = (await site.rows("SELECT * FROM public_v1.meter WHERE allocation_id = $1", allocation))[0]
    usage = Usage(row["rate_uminor_per_hour"], row["started_us"], UNIT_US)
    for _ in range(LOOKS):
        await asyncio.sleep(1)
        await tell.say(f"the clock runs: {money(usage.at(time.time_ns() // 1000))}")
    node = await site.value("SELECT node_id FROM public_v1.allocation WHERE allocation_id = $1", allocation)
    return allocation, str(node)


async def bill(site: Site, allocation: str) -> str:
    """What it has come to, in words; raises `DemoFailed` where the ledger is not what its meter has counted."""
    meter = (await site.rows("SELECT * FROM public_v1.meter WHERE allocation_id = $1", allocation))[0]
    rows = await site.rows("SELECT * FROM public_v1.ledger_entry WHERE meter_id = $1", meter["meter_id"])
    taken, given = (sum(r["amount_minor"] for r in rows if r["entry_type"] == kind) for kind in ("debit", "credit"))
    usage = Usage(meter["rate_uminor_per_hour"], meter["started_us"], UNIT_US)
    overrun = sum(row["amount_minor"] for row in rows if ":overrun:" in row["idempotency_key"])
    minimum = sum(row["amount_minor"] for row in rows if row["idempotency_key"].endswith(":minimum"))
    if taken - minimum - overrun != usage.at(meter["stopped_us"]):
        raise DemoFailed(f"{allocation}: {taken} was taken and {overrun} not used, the meter says {meter}")
    ran_s = (meter["stopped_us"] - meter["started_us"]) / 1e6
    least = ", the least that the policy takes" if minimum else ""
    how = f"stopped after {ran_s:.1f} s ({meter['stop_cause']})"
    unused = f", {money(overrun)} of it because it was not used" if overrun else ""
    return f"{how}: {money(taken)} debited{least}, {money(given)} given back{unused}"


def money(minor: int) -> str:
    """Minor units as people write them."""
    return f"{minor / 100:,.2f} usd"
