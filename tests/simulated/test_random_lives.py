"""Random rentals in the simulated world: each ledger is, to the unit, what the contract's page comes to.

AMENDS_TEST_LIVES=10000 lives more of them, in worlds of 300.
"""

import json
import os
from typing import Any

import pytest

from supervisors.invariants import committed
from supervisors.simulation.lives import Lives
from supervisors.simulation.world import WINDOW_US, World
from tests.actors.money.oracle import Account
from tests.simulated.sweep import records_of

LIVES = 300  # of one world
SEEDS = range(max(1, int(os.environ.get("AMENDS_TEST_LIVES", "300")) // LIVES))


def reckoned(meter: dict[str, Any], evaluations: list[dict[str, Any]]) -> dict[str, int]:
    """Key and amount of each entry, by the oracle: from when it ended, for what, and how far it was posted then."""
    book = Account(meter["rate_uminor_per_hour"], meter["started_us"], WINDOW_US)
    first, *later = evaluations
    book.post(first["posted_through_us"])
    book.end(first["cause"], first["reason"], first["asked_us"])
    for one in later:
        book.lower(one["asked_us"])
    assert book.stopped == meter["stopped_us"]
    name = meter["meter_id"]
    debits = {f"debit:{name}:{key}": amount for key, amount in book.debits.items()}
    return debits | {f"credit:{name}:{key}": amount for key, amount in book.credits.items()}


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_ledger_of_random_lives_is_the_formulas(seed: int) -> None:
    lives, world = Lives(LIVES, seed), World(seed, cleanup_tries=1000)
    assert world.run(lives.tell)
    assert lives.ended == LIVES
    tables = world.database.tables.rows
    evaluations: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(tables["audit_log"].values(), key=lambda each: each["seq"]):
        if row["action"] == "billing.credit.evaluated":
            evaluations.setdefault(row["target_ref"], []).append(json.loads(row["details"]))
    found: dict[str, dict[str, int]] = {}
    for row in tables["ledger_entries"].values():
        found.setdefault(row["meter_id"], {})[row["idempotency_key"]] = row["amount_minor"]
    meters = list(tables["meters"].values())
    assert len(meters) > 0.9 * LIVES
    causes = set()
    for meter in meters:
        causes.add(meter["stop_cause"])
        own = evaluations[f"meter:{meter['meter_id']}"]
        assert found.get(meter["meter_id"], {}) == reckoned(meter, own), (meter, own)
    assert causes == {"release", "force_release", "node_offline", "node_rebooted"}
    assert committed(records_of(world.database)) == []
    assert [row for row in tables["recovery_run"].values() if row["ended_us"] is None] == []
