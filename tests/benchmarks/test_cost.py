"""What a life costs does not grow unseen: counted, not timed."""

import pytest

from benchmarks.cost import STORED, run

MORE, LESS = 1.1, 0.8  # the log differs a little from run to run; what saves more is to be stored


@pytest.mark.slow
async def test_a_life_costs_what_is_stored() -> None:
    found = await run()
    grown = {
        (end, what): (found[end][what], stored)
        for end, costs in STORED.items() for what, stored in costs.items()
        if not LESS * stored <= found[end][what] <= MORE * stored
    }  # fmt: skip
    assert grown == {}
