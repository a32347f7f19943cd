"""What is promised in figures: how long amends take, and what was held past its end; counted as turns commit.

Open runs and debts are read once at start, so that what a killed runtime began counts as well.
"""

from collections.abc import Callable

from actors.tables import DebtRow
from amends.ports.reading import Reader
from amends.turn.decision import Decision
from amends.values.histogram import LONG, Histogram
from amends.values.records import RunEndRow, RunRow


class Objectives:
    """Times of recovery runs by matrix row, and debts. `now_us`: microseconds of the wall clock."""

    def __init__(self, read: Reader, now_us: Callable[[], int]) -> None:
        self._read, self._now_us = read, now_us
        self.took: dict[str, Histogram] = {}  # by matrix row
        self.leaked_us = 0  # that settled debts had lasted, since the start
        self._runs: dict[str, tuple[str, str, int]] = {}  # open run → row, trace, beginning
        self._debts: dict[str, int] = {}  # open debt → since when

    async def load(self) -> None:
        """What is open; raises `Unavailable`."""
        for row in await self._read.rows("begun_runs"):
            self._runs[row["recovery_id"]] = (row["matrix_row"], row["recovery_trace_id"], row["started_us"])
        self._debts = {row["debt_id"]: row["since_us"] for row in await self._read.rows("open_debts")}

    def follow(self, decision: Decision) -> None:
        """A turn has committed."""
        for row in decision.rows:
            if type(row) is RunRow:
                self._runs[row.recovery_id] = (row.matrix_row, row.recovery_trace_id, row.started_us)
            elif type(row) is RunEndRow and row.ended_us is not None:
                self._ended(row.recovery_id, row.ended_us)
            elif type(row) is DebtRow:
                self._owed(row)

    def oldest_debt_us(self) -> int:
        """How long the oldest debt has been owed."""
        return max(0, self._now_us() - min(self._debts.values())) if self._debts else 0

    def _ended(self, recovery_id: str, ended_us: int) -> None:
        begun = self._runs.pop(recovery_id, None)
        if begun is not None:
            matrix_row, trace_id, started_us = begun
            self.took.setdefault(matrix_row, Histogram(LONG)).observe((ended_us - started_us) / 1e6, trace_id)

    def _owed(self, row: DebtRow) -> None:
        if row.settled_us is None:
            self._debts.setdefault(row.debt_id, row.since_us)
        elif self._debts.pop(row.debt_id, None) is not None:
            self.leaked_us += max(0, row.settled_us - row.since_us)
