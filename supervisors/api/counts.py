"""What can be alarmed on: states, cases, failures, debts and violations, counted as turns commit.

Read from the database once at start; afterwards an index over committed turns, like the pool.
"""

import asyncio
import logging
from collections import Counter

from amends.ports.reading import Reader
from amends.turn.decision import Decision
from amends.values.errors import Rejected, TurnFailed, Unavailable
from amends.values.records import CaseRow, FailureRow

log = logging.getLogger("amends.boot")
VIOLATIONS_S = 300.0  # between two looks: the view reads much
STATED = ("node", "allocation")


class Counts:
    """Gauges of what is, and counters since the start."""

    def __init__(self, read: Reader) -> None:
        self._read = read
        self.states: Counter[tuple[str, str]] = Counter()  # (kind, state) of those that live or have ended since
        self.cases: dict[str, str] = {}  # open case → kind
        self.failures: Counter[tuple[str, str]] = Counter()  # (matrix row, code)
        self.violations: Counter[str] | None = None  # by name; None until they were looked for

    async def load(self) -> None:
        """As it stands; raises `Unavailable`."""
        for row in await self._read.rows("count_states"):
            self.states[row["kind"], row["state"]] = row["count"]
        self.cases = {row["case_id"]: row["kind"] for row in await self._read.rows("open_case_kinds")}

    def follow(self, decision: Decision) -> None:
        """A turn has committed."""
        kind, state, before = decision.kind.name, decision.state, decision.before
        if kind in STATED and state is not None and (before is None or before.state != state.state):
            self.states[kind, state.state] += 1
            if before is not None and self.states[kind, before.state]:  # one that had ended was never counted
                self.states[kind, before.state] -= 1
        for row in decision.rows:
            if type(row) is CaseRow:
                if row.state == "resolved":
                    self.cases.pop(row.case_id, None)
                else:
                    self.cases[row.case_id] = row.kind
            elif type(row) is FailureRow:
                self.failures[_matrix_row(decision, row), row.code] += 1

    def open_cases(self) -> Counter[str]:
        """Open cases by kind."""
        return Counter(self.cases.values())

    async def watch_violations(self) -> None:
        """Look for violations now and then, until cancelled."""
        while True:
            try:
                found = Counter(row["name"] for row in await self._read.rows("violations"))
            except (Unavailable, TurnFailed, Rejected) as error:
                log.info("violations could not be looked for: %s", error)
            else:
                for name in found.keys() - (self.violations or Counter()).keys():
                    log.error("an invariant is violated: %s; see public_v1.invariant_violation", name)
                self.violations = found
            await asyncio.sleep(VIOLATIONS_S)


def _matrix_row(decision: Decision, failure: FailureRow) -> str:
    """The row whose run the failure belongs to, "" for none."""
    for state in (decision.state, decision.before):
        for run in state.runs.values() if state is not None else ():
            if run.trace_id == failure.recovery_trace_id:
                return str(run.row)
    return ""
