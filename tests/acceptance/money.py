"""The ledger by the book: what each meter must have come to, reckoned from the policy's page and not by the product."""

import itertools
import tomllib
from typing import Any

from supervisors.policy_file import BUILT_IN
from tests.acceptance.world import World

HOUR = 3_600_000_000 * 1_000_000
POLICY = tomllib.loads(BUILT_IN.read_text())
UNIT_US = POLICY["time"]["unit_us"]


def cost(meter: dict[str, Any], until_us: int) -> int:
    """C(until), in minor units."""
    units = max(0, until_us - meter["started_us"]) // UNIT_US
    found: int = meter["rate_uminor_per_hour"] * units * UNIT_US // HOUR
    return found


def owed_back(meter: dict[str, Any], reason: str = "") -> int:
    """What the policy gives back for the first end of the meter, before any cap."""
    cause, stop, start = meter["stop_cause"], meter["stopped_us"], meter["started_us"]
    rule = next(r for r in POLICY["rule"] if r["cause"] == cause and r.get("reason", "*") in ("*", reason))
    base, bp = cost(meter, stop) - cost(meter, max(start, stop - rule.get("lookback_us", 0))), rule["bp"]
    if stop - start < rule.get("early_full_refund_us", 0):
        base, bp = cost(meter, stop), 10_000
    back: int = -(-base * bp // 10_000)
    return back


async def entries(world: World, meter_id: str) -> list[dict[str, Any]]:
    """The ledger entries of a meter, in the order of their birth."""
    query = "SELECT * FROM public_v1.ledger_entry WHERE meter_id = $1 ORDER BY created_us, entry_id"
    return await world.rows(query, meter_id)


async def by_key(world: World, meter_id: str) -> dict[str, int]:
    """Key, without the meter, and amount of each entry of a meter."""
    found = await entries(world, meter_id)
    return {entry["idempotency_key"].replace(f":{meter_id}", ""): entry["amount_minor"] for entry in found}


async def ledger_is_right(world: World) -> None:
    """Every meter's windows cover its time once, and debits less overrun are what it has cost, plus the minimum.

    Or more, where all that was taken has been given back: the cap.
    """
    for meter in await world.rows("SELECT * FROM public_v1.meter"):
        found = await entries(world, meter["meter_id"])
        windows = {e["window_start_us"]: e["amount_minor"] for e in found if e["window_start_us"] is not None}
        debits = sum(e["amount_minor"] for e in found if e["entry_type"] == "debit")
        credits_ = [e for e in found if e["entry_type"] == "credit"]
        overrun = sum(e["amount_minor"] for e in credits_ if ":overrun:" in e["idempotency_key"])
        minimum = sum(e["amount_minor"] for e in found if e["idempotency_key"].endswith(":minimum"))
        assert len(windows) + bool(minimum) == sum(e["entry_type"] == "debit" for e in found), meter
        posted, stopped = meter["posted_through_us"], meter["stopped_us"]
        assert posted >= (stopped or 0), meter
        used, given = cost(meter, min(posted, stopped or posted)) + minimum, sum(e["amount_minor"] for e in credits_)
        assert given <= debits, (meter, found)
        assert debits - overrun == used or (given == debits and debits - overrun > used), (meter, found)
        size = world.window_us or POLICY["time"]["window_us"]
        edges = [meter["started_us"], *range((meter["started_us"] // size + 1) * size, posted, size), posted]
        expected = {
            start // size * size: cost(meter, end) - cost(meter, start)
            for start, end in itertools.pairwise(edges)
            if end > start
        }
        assert windows == expected, (meter, found)
