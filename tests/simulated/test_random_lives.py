"""Random rentals in the simulated world: each ledger is, to the unit, what the contract's page comes to.

AMENDS_TEST_LIVES=10000 lives more of them, in worlds of 300.
"""

import json
import os
from typing import Any

import pytest

from supervisors.invariants import committed
from supervisors.simulation.checks import records_of
from supervisors.simulation.lives import Lives
from supervisors.simulation.world import WINDOW_US, World
from tests.actors.money.oracle import reckoned
from tests.proof import SIMULATED_LIVES, counted

LIVES = 300  # of one world
SEEDS = range(max(1, int(os.environ.get("AMENDS_TEST_LIVES", "300")) // LIVES))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_ledger_of_random_lives_is_the_formulas(seed: int) -> None:
    lives, world = Lives(LIVES, seed), World(seed, cleanup_tries=1000)
    assert world.run(lives.tell)
    assert lives.ended == LIVES
    counted[SIMULATED_LIVES] += LIVES
    tables = world.database.tables.rows
    evaluations: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(tables["audit_log"].values(), key=lambda each: each["seq"]):
        if row["action"] == "billing.credit.evaluated":
            evaluations.setdefault(row["target_ref"], []).append(json.loads(row["details"]))
    found: dict[str, dict[str, int]] = {}
    for row in tables["ledger_entries"].values():
        found.setdefault(row["meter_id"] or "", {})[row["idempotency_key"]] = row["amount_minor"]
    assert found.pop("") == lives.paid, "each payment and refund once, in whatever order it was told of"
    assert lives.replayed > 0.2 * LIVES
    meters = list(tables["meters"].values())
    assert len(meters) > 0.9 * LIVES
    causes = set()
    for meter in meters:
        causes.add(meter["stop_cause"])
        own = evaluations[f"meter:{meter['meter_id']}"]
        assert found.get(meter["meter_id"], {}) == reckoned(meter, own, WINDOW_US), (meter, own)
    assert causes == {"release", "force_release", "node_offline", "node_rebooted"}
    assert committed(records_of(world.database)) == []
    assert [row for row in tables["recovery_run"].values() if row["ended_us"] is None] == []
