"""What is promised in figures: times of recovery runs with a trace each, and what debts have held, over a restart."""

from collections.abc import Mapping, Sequence
from typing import Any

from actors.tables import DebtRow
from amends.values.records import RunEndRow
from supervisors.api.objectives import Objectives

SECOND = 1_000_000
TRACE = "a" * 32


class Stored:
    """What a killed runtime has left open."""

    async def rows(self, name: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """See `Reader`."""
        run = {"recovery_id": "recov_1", "matrix_row": "R04", "recovery_trace_id": TRACE, "started_us": SECOND}
        return {"begun_runs": [run], "open_debts": [{"debt_id": "debt_1", "since_us": 2 * SECOND}]}[name]


class Turn:
    """What a committed turn has written."""

    def __init__(self, *rows: object) -> None:
        self.rows = rows


async def test_what_was_begun_before_a_restart_counts_from_its_beginning() -> None:
    stored: Any = Stored()
    kept: Any = Objectives(stored, lambda: 12 * SECOND)
    await kept.load()
    assert kept.oldest_debt_us() == 10 * SECOND
    # a run that is degraded has not ended
    kept.follow(Turn(RunEndRow("recov_1", "degraded", None, "{}")))
    assert kept.took == {}
    kept.follow(Turn(RunEndRow("recov_1", "recovered", 8 * SECOND, "{}"), RunEndRow("recov_0", "failed", SECOND, "{}")))
    marked = [(bound, n, newest) for bound, n, newest in kept.took["R04"].cumulative() if newest]
    assert [(bound, n, newest.trace_id, newest.seconds) for bound, n, newest in marked] == [("15.0", 1, TRACE, 7.0)]
    assert (list(kept.took), kept.took["R04"].count) == (["R04"], 1)
    # a debt counts once, when it is settled
    for settled in (None, 9 * SECOND, 9 * SECOND):
        kept.follow(Turn(DebtRow("debt_1", "n1", "user", "x", None, None, 1, 2 * SECOND, settled)))
    assert (kept.leaked_us, kept.oldest_debt_us()) == (7 * SECOND, 0)
